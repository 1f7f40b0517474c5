"""What tells known from unknown, for a tiny network and drawn images: shared by the tests of several rooms."""

import torch
from torch import Tensor, nn

from torchlight.model.canary import add_canary_distance
from torchlight.model.checkpoint import Header
from torchlight.model.network import embedding_size
from torchlight.model.uncertainty.novelty import Novelty
from torchlight.training.evaluation.classification_metrics import infer_with_embeddings
from torchlight.training.evaluation.fit_novelty import KnownImages, distances_apart, fit_novelty


def plain_images(number: int, size: int, seed: int) -> Tensor:
    """Return (N, 3, S, S) uint8 images of one dark colour each with a little noise, which noise is unlike."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.randint(20, 70, (number, 3, 1, 1), generator=generator)
    noise = torch.randint(-10, 11, (number, 3, size, size), generator=generator)
    return (colours + noise).to(torch.uint8)


def novelty_of(network: nn.Module, header: Header) -> Novelty:
    """Return what tells plain images, which a network knows, from others; it may have any weights."""
    number, size = header.network.num_classes, embedding_size(network, header.network.architecture)
    labels = torch.arange(60) % number
    images = plain_images(120, header.image_spec.size, seed=0)
    logits, embeddings = infer_with_embeddings(network.eval(), images, header.image_spec, size)
    distances = distances_apart(embeddings[:60], labels, embeddings[60:], number)
    novelty = fit_novelty(embeddings[:60], labels, KnownImages(distances, labels, logits[60:], "val", False), 0.7)
    return add_canary_distance(novelty, network, header.image_spec)
