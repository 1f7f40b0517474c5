"""Where in an image the evidence for a class lies, and how far that evidence adds up to the answer.

Every method explains the checkpoint's network as PyTorch computes it: the logit of a class, or its lead over another's.
Gradients are taken with respect to the image or a layer's maps, never to parameters. Negative evidence stays as it is.
Knows nothing of pictures, files or HTTP.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchlight.model.classifier import Classifier
from torchlight.model.errors import UnknownTarget, ViewError, ViewNotApplicable
from torchlight.model.graph import INPUT, Layer, NetworkGraph
from torchlight.model.images import normalise
from torchlight.model.views.receptive_field import ADAPTIVE_POOLS

Colour = tuple[int, int, int]  # RGB, 0 to 255
BATCH_SIZE = 16  # 16 images of 224 pixels recorded for gradients take some 1.5 GB in a ResNet-50
MAX_INTEGRATION_STEPS = 1024
MAX_LISTED = 50  # classes that an error names
MAX_WINDOWS = 1024  # of an occlusion: every single pixel of a 32x32 image
# Layers after which logit = sum(gradient * maps) + (logit of maps of zeros) still holds. Maximum pooling, too: it picks
# one input, so it is linear for given maps.
POOLING_AND_LINEAR = ADAPTIVE_POOLS | frozenset(
    {"AvgPool2d", "MaxPool2d", "avg_pool2d", "max_pool2d", "mean", "Flatten", "flatten", "cat"}
    | {"Dropout", "dropout", "Identity", "Linear"}
)


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """How much each cell speaks for a class, and its account.

    Attributes:
        method: its name in METHODS.
        layer: whose grid the map is on: ``input`` is that of the pixels.
        target: index of the class that is explained.
        target_vs: index of the class it is compared with, if any.
        map: (h, w) float32 on the CPU; positive where the image speaks for the target. Saliency has no sign.
        logit: that of the target, less that of ``target_vs``.
        bias: the logit that is left when there is no evidence (maps of zeros, or the mean image); None where the method
            claims no sum.
        law: what the cells add up to, or why they do not.
    """

    method: str
    layer: str
    target: int
    target_vs: int | None
    map: Tensor
    logit: float
    bias: float | None = None
    law: str

    @property
    def is_signed(self) -> bool:
        """Whether the method tells what speaks for the target from what speaks against it."""
        return self.method != "saliency"

    @property
    def sum(self) -> float:
        """All cells added up, in float64."""
        return self.map.double().sum().item()

    @property
    def residual(self) -> float | None:
        """``logit - bias - sum``: 0 but for rounding where the law is exact; None where there is no law."""
        return None if self.bias is None else self.logit - self.bias - self.sum


@dataclass(frozen=True, kw_only=True)
class Occlusion(Attribution):
    """What hiding each part of the image takes away.

    Attributes:
        probability_map: (S, S) float32, as ``map``, for the probability; near 0 and 1 it saturates where the logit
            does not.
        labels: (n, n) int64: index of the most probable class with the window at ``stride * (row, column)``.
        window, stride: in pixels.
    """

    probability_map: Tensor
    labels: Tensor
    window: int
    stride: int


def grad_cam(
    classifier: Classifier, image: Tensor, target: int, target_vs: int | None = None, *, layer: str | None = None
) -> Attribution:
    """Weigh each map of a layer by the mean of its gradient, and add the maps up.

    Averaging gradients can light places that the network did not use; where an average pooling and one linear layer
    follow, gradients are even and it equals :func:`hires_cam`.

    Args:
        image: (3, S, S) uint8 RGB as :func:`model.images.to_tensor` makes it.
        target, target_vs: class indices, see :func:`resolve_target`.
        layer: name in ``classifier.graph``; without it the one of :func:`default_cam_layer`.

    Returns:
        The map on the layer's own grid, before the usual ReLU.

    Raises:
        UnknownTarget: the network has no such class.
        UnknownLayer, ViewNotApplicable: the layer does not exist, or does not give maps.

    Source: Selvaraju et al.: Grad-CAM, ICCV 2017.
    """
    score = _score_class(classifier, image, target, target_vs)
    layer = _layer_of_maps(classifier.graph, layer)
    maps, gradients, _ = score.differentiate(score.image, layer)
    cells = (gradients.mean((2, 3), keepdim=True) * maps).sum(1)[0]  # (1, C, h, w) -> (h, w)
    law = "none, since the means of gradients need not add up to the logit; hires_cam does"
    return score.attribute("grad_cam", layer, cells, law)


def hires_cam(
    classifier: Classifier, image: Tensor, target: int, target_vs: int | None = None, *, layer: str | None = None
) -> Attribution:
    """Multiply the maps of a layer by their gradient, place by place, and add the maps up.

    Where the rest of the network is pooling and linear layers, cells + bias = logit, and the bias is the logit of maps
    that are zero everywhere. Where the last layer reads the maps of several layers (a multilevel head), the evidence of
    all is added up on the grid of the last of them, each number in the cell that it lies in, so that the sum still
    holds; with a ``layer`` it is the share of that one, and the bias has the others'. Arguments and errors are those
    of :func:`grad_cam`.

    Source: Draelos and Carin: Use HiResCAM instead of Grad-CAM, 2020.
    """
    score, graph = _score_class(classifier, image, target, target_vs), classifier.graph
    *earlier, last = _layers_of_evidence(graph) if layer is None else [_layer_of_maps(graph, layer)]
    maps, gradients = score.differentiate_apart([*earlier, last])
    products = [(gradient * one).sum(1)[0] for gradient, one in zip(gradients, maps, strict=True)]  # (h, w) each
    cells = torch.stack([_lay(some, products[-1].shape) for some in products]).sum(0)
    if nonlinear := _first_nonlinear_layer(graph, last):
        found = f"{nonlinear.name!r} ({nonlinear.type})"
        law = f"none, since after {last!r} comes {found}, not pooling and linear layers alone"
        return score.attribute("hires_cam", last, cells, law)
    law = "cells + bias = logit"
    if earlier:
        law += f"; the cells hold the evidence of {' and '.join(map(repr, earlier))} too"
    elif _reads_others(graph, last):
        law += "; the bias has what is read beside this layer"
    zeros = {name: torch.zeros_like(one) for name, one in zip([*earlier, last], maps, strict=True)}
    with torch.no_grad():
        without_maps = graph.run(score.image, [graph.output], zeros)[graph.output]
    return score.attribute("hires_cam", last, cells, law, score.pick_target(without_maps).item())


def saliency(classifier: Classifier, image: Tensor, target: int, target_vs: int | None = None) -> Attribution:
    """Return how strongly the logit answers to each pixel: |gradient|, the largest of the three colours.

    With respect to the normalised image. Arguments and errors are those of :func:`grad_cam`.

    Source: Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks, 2013.
    """
    score = _score_class(classifier, image, target, target_vs)
    _, gradients, _ = score.differentiate(score.image, INPUT)
    law = "none, since the size of a gradient says how much a pixel matters, not for what"
    return score.attribute("saliency", INPUT, gradients[0].abs().amax(0), law)  # (3, S, S) -> (S, S)


def input_x_gradient(classifier: Classifier, image: Tensor, target: int, target_vs: int | None = None) -> Attribution:
    """Multiply the normalised image by the gradient, and add the colours up.

    Arguments and errors are those of :func:`grad_cam`.

    Source: Shrikumar et al.: Not Just a Black Box, 2016.
    """
    score = _score_class(classifier, image, target, target_vs)
    pixels, gradients, _ = score.differentiate(score.image, INPUT)
    law = "none, since a gradient knows the closest surroundings of the image only; integrated_gradients adds up"
    return score.attribute("input_x_gradient", INPUT, (pixels * gradients).sum(1)[0], law)


def integrated_gradients(
    classifier: Classifier,
    image: Tensor,
    target: int,
    target_vs: int | None = None,
    *,
    n_steps: int = 64,
    on_batch: Callable[[], None] = lambda: None,
) -> Attribution:
    """Multiply the image by its mean gradient on the way from the mean image, and add the colours up.

    The mean image of the training data is zero after normalisation. The way is cut into ``n_steps`` parts, over each of
    which the gradient counts as the mean of those at its ends. The logits at its ends tell how wrong that is, so the
    parts where it is most wrong are halved until there are ``n_steps``: near the mean image, where networks change
    most. Of 40 photos and the default network that ships, 64 parts leave 0.3% of ``logit - bias`` in the median and at
    most 5%, 256 leave 0.1% and at most 0.7%; of EfficientNet-Lite2, 256 leave 0.1% and at most 1.8% of 20 photos.
    Each point's cells are kept until the end: 51 MB for 256 parts of 224 pixels.

    Args:
        image, target, target_vs: as for :func:`grad_cam`.
        n_steps: 1 to 1024.
        on_batch: called before each ``BATCH_SIZE`` gradients; what it raises ends the work.

    Raises:
        UnknownTarget: the network has no such class.
        ViewNotApplicable: ``n_steps`` is out of range.

    Source: Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, ICML 2017.
    """
    if not 1 <= n_steps <= MAX_INTEGRATION_STEPS:
        raise ViewNotApplicable(f"n_steps is {n_steps}; take 1 to {MAX_INTEGRATION_STEPS}")
    score = _score_class(classifier, image, target, target_vs)
    cells = _integrate(score, n_steps, on_batch)
    bias = score.pick_target(_logits(classifier.graph, torch.zeros_like(score.image))).item()
    law = f"cells + bias = logit, but for the error of {n_steps} steps"
    return score.attribute("integrated_gradients", INPUT, cells, law, bias)


def occlusion(
    classifier: Classifier,
    image: Tensor,
    target: int,
    target_vs: int | None = None,
    *,
    window: int | None = None,
    stride: int | None = None,
    baseline: Colour | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> Occlusion:
    """Hide one square window after the other, and return what each takes away from the logit and the probability.

    A pixel gets the mean over the windows that hide it. Positive means that hiding it weakens the class; Zeiler and
    Fergus plot what remains, where dark is important. Images with a square in them are unlike those of the training.

    Args:
        image, target, target_vs: as for :func:`grad_cam`.
        window: side in pixels; a quarter of the image's without it.
        stride: pixels from one window to the next, at most ``window``, so that none is left out; a quarter of the
            window without it. Windows begin at its multiples; the last may reach over the edge.
        baseline: colour of the window; without it the mean colour of the training data, zero after normalisation.
        on_batch: called before each ``BATCH_SIZE`` windows; what it raises ends the work.

    Raises:
        UnknownTarget: the network has no such class.
        ViewNotApplicable: window or stride are out of range, or make more than 1024 windows.

    Source: Zeiler and Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014.
    """
    window = max(1, classifier.spec.size // 4) if window is None else window
    stride = max(1, window // 4) if stride is None else stride
    covers = _covers(classifier.spec.size, window, stride)  # (n, S)
    score = _score_class(classifier, image, target, target_vs)
    hidden = _logits_without(score, covers, _paint(classifier, baseline), on_batch)  # (n * n, K)
    drops = score.pick_target(score.logits) - score.pick_target(hidden)  # (n * n,)
    falls = score.pick_target(score.logits.softmax(1)) - score.pick_target(hidden.softmax(1))
    law = "none, since windows overlap, and what they hide works together"
    return Occlusion(
        **vars(score.attribute("occlusion", INPUT, _spread(drops, covers), law)),
        probability_map=_spread(falls, covers),
        labels=hidden.argmax(1).view(len(covers), -1),
        window=window,
        stride=stride,
    )


METHODS: dict[str, Callable[..., Attribution]] = {
    "grad_cam": grad_cam,
    "hires_cam": hires_cam,
    "saliency": saliency,
    "input_x_gradient": input_x_gradient,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
}


# What a caller may choose beside the targets; methods that work in batches also take ``on_batch``.
OPTIONS: dict[str, tuple[str, ...]] = {
    "grad_cam": ("layer",),
    "hires_cam": ("layer",),
    "integrated_gradients": ("n_steps",),
    "occlusion": ("baseline", "stride", "window"),
}
BATCHED = frozenset({"integrated_gradients", "occlusion"})


def occlude_once(
    classifier: Classifier, image: Tensor, y: int, x: int, window: int, baseline: Colour | None = None
) -> Tensor:
    """Return the probabilities with one square hidden.

    Args:
        image: (3, S, S) uint8 RGB.
        y, x: upper left pixel of the square, whose parts outside the image do not count; it may miss the image.
        window, baseline: as for :func:`occlusion`.

    Returns:
        (K,) float32 on the CPU.
    """
    pixels = torch.arange(classifier.spec.size)
    rows, columns = ((start <= pixels) & (pixels < start + window) for start in (y, x))
    covered = (rows[:, None] & columns).to(classifier.device)  # (S, S)
    hidden = torch.where(covered, _paint(classifier, baseline), classifier.network_input(image[None]))
    return _logits(classifier.graph, hidden)[0].softmax(0)


def check_square(y: int, x: int, window: int, size: int) -> None:
    """Make sure that a square of ``window`` pixels touches an image of ``size`` pixels a side.

    Raises:
        ViewError: it does not, or is larger than the image.
    """
    if window > size:
        raise ViewError(f"window is {window} pixels; take 1 to {size}, the side of the image")
    if not (-window < y < size and -window < x < size):
        raise ViewError(
            f"square at y={y}, x={x} misses the image; with window={window} both go from {1 - window} to {size - 1}"
        )


def resolve_target(classifier: Classifier, text: str | None, probabilities: Tensor) -> int:
    """Return the class that a user means.

    Args:
        text: a class name or, where no class has that name, an index; None for the most probable class.
        probabilities: (K,) of the image.

    Raises:
        UnknownTarget: neither a name nor an index; the message lists the names, unless there are many.
    """
    if text is None:
        return classifier.top_k(probabilities, 1)[0].index
    indices = {str(index): index for index in range(len(classifier.class_names))}
    named = indices | {name: index for index, name in enumerate(classifier.class_names)}
    if text not in named:
        raise _unknown_target(classifier, text)
    return named[text]


def default_cam_layer(graph: NetworkGraph) -> str:
    """Return the layer that class activation maps are made of unless one is named.

    It is the last whose output is maps of more than one position. Adaptive pooling does not count: it belongs to the
    head, where it may also repeat positions to fill a fixed grid (VGG).

    Raises:
        ViewNotApplicable: there is none.
    """
    for layer in reversed(graph.layers.values()):
        if layer.has_places and layer.type not in ADAPTIVE_POOLS:
            return layer.name
    raise ViewNotApplicable("no layer of this network gives maps of more than one position; take a method on the input")


@dataclass(frozen=True)
class _ClassScore:
    """The number that a method explains: the logit of a class for an image, or its lead over another class's.

    Attributes:
        image: (1, 3, S, S) float32 normalised, on the network's device.
        logits: (1, K) of it, on the CPU.
    """

    graph: NetworkGraph
    image: Tensor
    logits: Tensor
    target: int
    target_vs: int | None

    @property
    def logit(self) -> float:
        return self.pick_target(self.logits).item()

    def pick_target(self, outputs: Tensor) -> Tensor:
        """Return of (N, K) logits or probabilities the target's, less those of the class compared with: (N,)."""
        chosen = outputs[:, self.target]
        return chosen if self.target_vs is None else chosen - outputs[:, self.target_vs]

    def differentiate(self, images: Tensor, layer: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a layer gives for each image, the gradient of its score with respect to that, and the score.

        Returns:
            (N, ...), (N, ...) and (N,).
        """
        with torch.enable_grad():
            outputs = self.graph.run(images.detach().requires_grad_(), [layer, self.graph.output])
            scores = self.pick_target(outputs[self.graph.output])
            # of the sum, so that each image gets its own gradient
            (gradients,) = torch.autograd.grad(scores.sum(), outputs[layer], materialize_grads=True)
        return outputs[layer].detach(), gradients, scores.detach()

    def differentiate_apart(self, layers: Sequence[str]) -> tuple[list[Tensor], list[Tensor]]:
        """Return what layers give for the image, and the gradient of its score with respect to each, the others fixed.

        What a layer does through another one of them is left out, so that nothing is counted twice.
        """
        if len(layers) == 1:  # nothing else to hold, and one pass less
            maps, gradients, _ = self.differentiate(self.image, layers[0])
            return [maps], [gradients]
        with torch.no_grad():
            leaves = dict(self.graph.run(self.image, layers))
        with torch.enable_grad():
            for one in leaves.values():
                one.requires_grad_()
            score = self.pick_target(self.graph.run(self.image, [self.graph.output], leaves)[self.graph.output]).sum()
            found = torch.autograd.grad(score, list(leaves.values()), materialize_grads=True)
        return [one.detach() for one in leaves.values()], list(found)

    def attribute(self, method: str, layer: str, cells: Tensor, law: str, bias: float | None = None) -> Attribution:
        return Attribution(
            method=method,
            layer=layer,
            target=self.target,
            target_vs=self.target_vs,
            map=cells.float().cpu().contiguous(),
            logit=self.logit,
            bias=bias,
            law=law,
        )


def _integrate(score: _ClassScore, n_steps: int, on_batch: Callable[[], None]) -> Tensor:
    """Return (S, S): the image times its mean gradient on the way to it, see :func:`integrated_gradients`."""
    first = min(n_steps, BATCH_SIZE - 1)  # parts; their ends are one more
    new = (torch.arange(first + 1, dtype=torch.float64) / first).square()  # shares of the way
    shares, logits, slopes = (torch.empty(0, dtype=torch.float64) for _ in range(3))
    kept: list[Tensor] = []  # of each point, the image times the gradient there
    while len(new):
        on_batch()
        points = new.to(score.image).view(-1, 1, 1, 1) * score.image  # (N, 3, S, S)
        _, gradients, scores = score.differentiate(points, INPUT)
        kept.append((gradients * score.image).sum(1))  # (N, S, S)
        shares, logits = torch.cat([shares, new]), torch.cat([logits, scores.double().cpu()])
        slopes = torch.cat([slopes, kept[-1].double().sum((1, 2)).cpu()])
        order = shares.argsort()
        widths, ends = shares[order].diff(), slopes[order]
        errors = (logits[order].diff() - widths * (ends[1:] + ends[:-1]) / 2).abs()
        worst = errors.topk(min(BATCH_SIZE, len(errors), n_steps + 1 - len(shares))).indices
        new = shares[order][worst] + widths[worst] / 2
    weights = torch.empty_like(shares)
    weights[order] = (F.pad(widths, (1, 0)) + F.pad(widths, (0, 1))) / 2  # half of the part before and of that after
    return torch.einsum("n,nhw->hw", weights.to(score.image), torch.cat(kept))


def _score_class(classifier: Classifier, image: Tensor, target: int, target_vs: int | None) -> _ClassScore:
    for index in (target, target_vs):
        if index is not None and not 0 <= index < len(classifier.class_names):
            raise _unknown_target(classifier, str(index))
    batch = classifier.network_input(image[None])
    return _ClassScore(classifier.graph, batch, _logits(classifier.graph, batch), target, target_vs)


def _unknown_target(classifier: Classifier, text: str) -> UnknownTarget:
    number = len(classifier.class_names)
    names = ", ".join(classifier.class_names) if number <= MAX_LISTED else f"the {number} in /v1/model"
    return UnknownTarget(f"target {text!r} is not a class; name one of {names}, or an index from 0 to {number - 1}")


def _logits(graph: NetworkGraph, images: Tensor) -> Tensor:
    """Return (N, K) on the CPU."""
    with torch.no_grad():
        return graph.run(images, [graph.output])[graph.output].cpu()


def _layer_of_maps(graph: NetworkGraph, name: str | None) -> str:
    if name is None:
        return default_cam_layer(graph)
    layer = graph.find_layer(name)
    if not layer.has_maps:
        size = "x".join(map(str, layer.out_shape))
        raise ViewNotApplicable(f"layer {name!r} gives {size} numbers, not maps; name a layer before it")
    if not layer.has_places:
        raise ViewNotApplicable(f"layer {name!r} gives maps of one position, which is nowhere; name a layer before it")
    return name


def _first_nonlinear_layer(graph: NetworkGraph, layer: str) -> Layer | None:
    """Return the first layer after ``layer`` that makes the rest of the network not linear, None if none does."""
    reached = {layer}
    for later in graph.layers.values():
        if reached.intersection(later.inputs):
            if later.type not in POOLING_AND_LINEAR:
                return later
            reached.add(later.name)
    return None


def _layers_of_evidence(graph: NetworkGraph) -> list[str]:
    """Return whose maps the linear end of the network reads, in the order they run; the default layer is the last.

    Only the default layer if something else is read as well, so that the maps do not make the whole logit.
    """
    default, read, found = default_cam_layer(graph), {graph.output}, []
    for layer in reversed(graph.layers.values()):
        if layer.name not in read:
            continue
        if layer.name == default or layer.type not in POOLING_AND_LINEAR:
            found.append(layer)
        else:
            read.update(layer.inputs)
    is_whole = INPUT not in read and all(layer.has_maps for layer in found)
    return [layer.name for layer in reversed(found)] if is_whole and found[0].name == default else [default]


def _reads_others(graph: NetworkGraph, layer: str) -> bool:
    """Whether anything between a layer and the logits reads a layer that does not depend on it."""
    reached = {layer}
    for later in graph.layers.values():
        if reached.intersection(later.inputs):
            if not reached.issuperset(later.inputs):
                return True
            reached.add(later.name)
    return False


def _lay(cells: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the sums of cells (h, w) on a grid of another shape, each in the cell that it lies in."""
    rows, columns = (torch.arange(side) * wanted // side for side, wanted in zip(cells.shape, shape, strict=True))
    return cells.new_zeros(*shape).index_put_((rows[:, None], columns), cells, accumulate=True)


def _covers(size: int, window: int, stride: int) -> Tensor:
    """Return (n, S) bool: which rows, or columns, each of the n windows along a side hides."""
    if not 1 <= window <= size:
        raise ViewNotApplicable(f"window is {window} pixels; take 1 to {size}, the side of the image")
    if not 1 <= stride <= window:
        raise ViewNotApplicable(f"stride is {stride} pixels; take 1 to {window}, the window, so that none is left out")
    starts = torch.arange(0, size - window + stride, stride)[:, None]
    if len(starts) ** 2 > MAX_WINDOWS:
        raise ViewNotApplicable(f"{len(starts) ** 2} windows are more than {MAX_WINDOWS}; take a longer stride")
    pixels = torch.arange(size)
    return (starts <= pixels) & (pixels < starts + window)


def _paint(classifier: Classifier, baseline: Colour | None) -> Tensor:
    """Return the normalised colour of a window, (1, 3, 1, 1)."""
    if baseline is None:
        return torch.zeros(1, 3, 1, 1, device=classifier.device)
    colour = torch.tensor(baseline, dtype=torch.uint8, device=classifier.device)
    return normalise(colour.view(1, 3, 1, 1), classifier.spec)


def _logits_without(score: _ClassScore, covers: Tensor, paint: Tensor, on_batch: Callable[[], None]) -> Tensor:
    """Return (n * n, K) on the CPU: the logits with each window hidden, row by row."""
    covers = covers.to(paint.device)
    windows = torch.cartesian_prod(*[torch.arange(len(covers), device=paint.device)] * 2)
    logits = []
    for some in torch.split(windows, BATCH_SIZE):
        on_batch()
        hidden = covers[some[:, 0], None, :, None] & covers[some[:, 1], None, None, :]  # (N, 1, S, S)
        logits.append(_logits(score.graph, torch.where(hidden, paint, score.image)))
    return torch.cat(logits)


def _spread(values: Tensor, covers: Tensor) -> Tensor:
    """Return (S, S): for each pixel the mean of the values (n * n,) of the windows that hide it."""
    cover = covers.double()  # (n, S)
    total = cover.T @ values.double().view(len(cover), -1) @ cover  # (S, n) (n, n) (n, S) -> (S, S)
    return (total / torch.outer(cover.sum(0), cover.sum(0))).float()
