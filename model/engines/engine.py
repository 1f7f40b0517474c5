"""How answers are computed on a CPU: by OpenVINO, which runs the same layers faster than PyTorch, or by PyTorch itself.

The views always run on PyTorch. So OpenVINO is only used if it has all layers of the network and gives the same
answers: they are compared when the service starts, and the difference is published with the model. In int8, on
request, the answers do differ, by as much as was measured when the ranges were.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from torchlight.model.classifier import Classifier
from torchlight.model.engines.int8_ranges import Quantisation, multiplying_layers
from torchlight.model.engines.openvino_network import (
    import_openvino,
    translate_extremes,
    translate_layers,
    translate_network,
)
from torchlight.model.engines.parity import BATCH_SIZES, TOLERANCE, largest_difference
from torchlight.model.errors import EngineUnavailable
from torchlight.model.uncertainty.novelty import Strangeness
from torchlight.model.views.embedding import embedding_layer, to_embeddings

RANGE_BATCH_SIZE = 8  # images; larger batches are no faster
INT8_SLACK = 0.05  # of a probability: another processor rounds and saturates int8 otherwise, but by no more than this


@dataclass(frozen=True)
class Answers:
    """What a network says of N images.

    Attributes:
        probabilities: (N, K) float32 on the CPU.
        strangeness: None if the checkpoint cannot tell.
    """

    probabilities: Tensor
    strangeness: Strangeness | None


AnswerFunction = Callable[[Tensor], Answers]  # of (N, 3, S, S) uint8 RGB images


@dataclass(frozen=True)
class Engine:
    """A way to compute :meth:`Classifier.probabilities`, and how strange images are.

    Attributes:
        name: ``openvino`` or ``pytorch``, with its version.
        answer: (N, 3, S, S) uint8 RGB -> answers; safe to call from several threads.
        difference: the largest between its probabilities and PyTorch's over seeded noise; 0 for PyTorch.
        reason: why it is PyTorch where OpenVINO was tried, for people; None otherwise.
        quantisation: the ranges it computes with, if in int8.
    """

    name: str
    answer: AnswerFunction
    difference: float
    reason: str | None = None
    quantisation: Quantisation | None = None

    def run(self, images: Tensor) -> Tensor:
        """Return (N, K) float32 probabilities of (N, 3, S, S) uint8 RGB images."""
        return self.answer(images).probabilities


def choose_engine(classifier: Classifier, wanted: str, quantisation: Quantisation | None = None) -> Engine:
    """Return the fastest engine whose answers are the classifier's, in int8 within what was measured.

    Args:
        classifier: not changed.
        wanted: ``auto``, ``openvino`` or ``pytorch``.
        quantisation: compute in int8, which only OpenVINO does.

    Raises:
        EngineUnavailable: the wanted engine or precision is not available for this network.
    """
    if quantisation is not None:
        if wanted == "pytorch":
            raise EngineUnavailable("int8 is computed by OpenVINO; set TORCHLIGHT_ENGINE to auto or openvino")
        return openvino_engine(classifier, quantisation)
    if wanted == "pytorch":
        return pytorch_engine(classifier)
    try:
        return openvino_engine(classifier)
    except EngineUnavailable as error:
        if wanted == "openvino":
            raise
        return pytorch_engine(classifier, reason=str(error))


def pytorch_engine(classifier: Classifier, reason: str | None = None) -> Engine:
    """Return the engine that is always available."""
    embedding = _embedding_layers(classifier)
    outputs = classifier.graph.compile_outputs([classifier.graph.output, *embedding]) if embedding else None

    def answer(images: Tensor) -> Answers:
        if outputs is None:
            return Answers(classifier.probabilities(images), None)
        with torch.inference_mode():
            logits, *embeddings = (one.float().cpu() for one in outputs(classifier.network_input(images)))
            return _to_answers(classifier, logits.softmax(dim=1), embeddings)

    return Engine(f"pytorch {version('torch')}", answer, 0.0, reason)


def openvino_engine(classifier: Classifier, quantisation: Quantisation | None = None) -> Engine:
    """Return OpenVINO with the network's layers, on as many threads as PyTorch has now.

    Args:
        quantisation: compute in int8; the answers may then differ.

    Raises:
        EngineUnavailable: another device, no OpenVINO, a layer that cannot be translated, or answers that differ.
    """
    _check_available(classifier)
    network = translate_network(classifier, quantisation, _embedding_layers(classifier))
    outputs = _compile(network, torch.get_num_threads())

    def answer(images: Tensor) -> Answers:
        probabilities, *embeddings = outputs(images)
        return _to_answers(classifier, probabilities, embeddings)

    difference = largest_difference(classifier, lambda images: answer(images).probabilities, BATCH_SIZES)
    limit = TOLERANCE if quantisation is None else quantisation.difference + INT8_SLACK
    if not difference <= limit:
        raise EngineUnavailable(
            f"OpenVINO's probabilities differ from PyTorch's by up to {difference:.2g}; the limit is {limit:.2g}"
        )
    return Engine(f"openvino {version('openvino')}", answer, difference, quantisation=quantisation)


def layer_outputs(classifier: Classifier, names: Sequence[str]) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return a function from images to the outputs of some layers, such as the features that a new head is fitted to.

    OpenVINO computes them five times as fast as PyTorch, within rounding; PyTorch does where OpenVINO cannot. Batches
    of 8 images are as fast as larger ones, in less memory.

    Args:
        classifier: not changed.
        names: of layers of ``classifier.graph``.

    Returns:
        (N, 3, S, S) uint8 RGB -> one (N, ...) float32 tensor on the CPU for each name.

    Raises:
        UnknownLayer: one of the names does not exist.
    """
    for name in names:
        classifier.graph.find_layer(name)
    try:
        _check_available(classifier)
        return _compile(translate_layers(classifier, names), torch.get_num_threads())
    except EngineUnavailable:
        return lambda images: _run_graph(classifier, names, images)


def measure_ranges(classifier: Classifier, images: Tensor) -> dict[str, tuple[float, float]]:
    """Return least and largest input of each layer that multiplies, over some images.

    Args:
        images: (N, 3, S, S) uint8 RGB, of the training data.

    Raises:
        EngineUnavailable: OpenVINO, which computes int8, cannot compute this network.
    """
    _check_available(classifier)
    names = [layer.name for layer in multiplying_layers(classifier)]
    run = _compile(translate_extremes(classifier, names), torch.get_num_threads())
    least, most = zip(*map(run, torch.split(images, RANGE_BATCH_SIZE)), strict=True)  # (names,) for each batch
    lows = torch.stack(least).amin(0).clamp(max=0)  # padding is 0, so 0 is inside
    highs = torch.stack(most).amax(0).clamp(min=0)
    return dict(zip(names, zip(lows.tolist(), highs.tolist(), strict=True), strict=True))


def _embedding_layers(classifier: Classifier) -> list[str]:
    """Return the layer whose output tells how strange an image is, if the checkpoint can tell."""
    return [] if classifier.checkpoint.novelty is None else [embedding_layer(classifier.graph)]


def _to_answers(classifier: Classifier, probabilities: Tensor, embeddings: Sequence[Tensor]) -> Answers:
    novelty = classifier.checkpoint.novelty
    strangeness = None if novelty is None else novelty.measure(to_embeddings(embeddings[0]), probabilities)
    return Answers(probabilities, strangeness)


def _run_graph(classifier: Classifier, names: Sequence[str], images: Tensor) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        outputs = classifier.graph.run(classifier.network_input(images), names)
    return tuple(outputs[name].float().cpu() for name in names)


def _check_available(classifier: Classifier) -> None:
    if classifier.device.type != "cpu":
        raise EngineUnavailable(f"OpenVINO is for the CPU; the device is {classifier.device}")
    if find_spec("openvino") is None:
        raise EngineUnavailable("OpenVINO is not installed; add it with `pip install openvino`")


def _compile(network: Any, threads: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return a function from the network's input to its outputs."""
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,  # one batch at a time, on all threads
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # by default bfloat16 where the processor has it
        "ENABLE_CPU_PINNING": False,  # else several processes would share the first cores
    }
    request = import_openvino().Core().compile_model(network, "CPU", settings).create_infer_request()
    lock = threading.Lock()  # a request holds the buffers of one call

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with lock:
            outputs = request.infer([images.numpy()]).values()
            return tuple(torch.from_numpy(output.copy()) for output in outputs)  # the next call overwrites the buffers

    return run
