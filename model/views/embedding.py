"""What the network sums up an image to, and how equal images are known. Knows nothing of files."""

import hashlib
from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchlight.model.classifier import Classifier
from torchlight.model.graph import NetworkGraph
from torchlight.model.images import ImageSpec, normalise
from torchlight.model.network import classifier_head


def embed(classifier: Classifier, images: Tensor) -> Tensor:
    """Return what the network sums up each image to: the output of :func:`embedding_layer`, scaled to length 1.

    Args:
        images: (N, 3, S, S) uint8 RGB as :func:`model.images.to_tensor` makes them.

    Returns:
        (N, D) float32 on the CPU; a row of zeros if the vector itself is zero.
    """
    layer = embedding_layer(classifier.graph)
    return to_embeddings(layer_outputs(classifier, images, [layer])[layer])


def embedding_layer(graph: NetworkGraph) -> str:
    """Return the name of the layer whose output enters the classifier head.

    Of a multilevel head, which reads several vectors in a row, the last one: the others say where things are rather
    than what they are, and are so much larger that a cosine over all would be theirs alone.
    """
    name = graph.find_layer(graph.name_of(classifier_head(graph.network))).inputs[0]
    read = graph.layers.get(name)
    return read.inputs[-1] if read and read.type == "cat" and len(read.out_shape) == 1 else name


def answer_with_embeddings(network: nn.Module, spec: ImageSpec, images: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return logits (N, K), and the embeddings (N, D) that :func:`embed` would, without tracing the network.

    Args:
        network: in evaluation mode; nobody else may run it meanwhile.
        images: (N, 3, S, S) uint8 RGB on the network's device.
        size: D, see :func:`model.network.embedding_size`.
    """
    read: list[Tensor] = []

    def keep(_head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read.append(inputs[0])

    hook = classifier_head(network).register_forward_pre_hook(keep)
    try:
        with torch.inference_mode():
            logits: Tensor = network(normalise(images, spec).contiguous(memory_format=torch.channels_last))  # (N, K)
    finally:
        hook.remove()
    return logits.float().cpu(), to_embeddings(read[0][:, -size:])  # a multilevel head reads other levels before it


def to_embeddings(outputs: Tensor) -> Tensor:
    """Return outputs of :func:`embedding_layer`, (N, D) or (N, D, H, W), as :func:`embed` does.

    Maps, which enter a network whose last layer is a convolution, are averaged over their positions.
    """
    vectors = outputs.float().cpu()
    if vectors.ndim == 4:
        vectors = vectors.flatten(2).mean(2)  # (N, D, H, W) -> (N, D)
    return F.normalize(vectors)


def layer_outputs(classifier: Classifier, images: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
    """Return the outputs of some layers for (N, 3, S, S) uint8 RGB images, by name, on the network's device."""
    with torch.inference_mode():
        return classifier.graph.run(classifier.network_input(images), layers)


def image_digest(image: Tensor) -> str:
    """Return the SHA-256, in hex, of the bytes of a (3, S, S) uint8 image: what the network gets, whatever the file."""
    return hashlib.sha256(image.numpy().tobytes()).hexdigest()
