"""Checks of an index: values computed again, best images and neighbours searched without it."""

import math
from collections.abc import Iterator

import torch

from torchlight.model.checks.subject import Finding, Subject, below
from torchlight.model.views.embedding import embed, image_digest, layer_outputs
from torchlight.model.views.image_index import ChannelExamples, Index

CHANNELS = 8  # that are computed again, of hundreds
SAMPLE = 200  # indexed images that are searched for one that should have been among the best


def examples_again(subject: Subject) -> Finding:
    """Compute the recorded values of some channels from the stored images again."""
    index, images = subject.stored()
    errors = []
    for layer, channel in _some_channels(index):
        peaks = [peak for row in vars(index.top_images(layer, channel)).values() for peak in row]
        maps = layer_outputs(subject.classifier, images[[peak.image for peak in peaks]], [layer])[layer][:, channel]
        ours = torch.stack([one[peak.y, peak.x] for one, peak in zip(maps, peaks, strict=True)])
        given = torch.tensor([peak.value for peak in peaks])
        largest = maps.flatten(1).amax(1)
        scale = max(maps.abs().max().item(), 1e-30)
        errors.append(max((ours - given).abs().max().item(), (largest - given).abs().max().item()) / scale)
    return Finding(max(errors), f"{len(errors)} units, relative to the largest value")


def best_examples_are_best(subject: Subject) -> Finding:
    """Search a random part of the index for images that belong into a row and are not in it."""
    index, images = subject.stored()
    chosen = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))[:SAMPLE].tolist()
    chosen_channels = list(_some_channels(index))
    outputs = layer_outputs(subject.classifier, images[chosen], [layer for layer, _ in chosen_channels])
    missed = 0
    for layer, channel in chosen_channels:
        peaks = outputs[layer][:, channel].flatten(1).amax(1).tolist()
        missed += _missed(index.top_images(layer, channel), dict(zip(chosen, peaks, strict=True)))
    return Finding(missed, f"{len(chosen_channels)} units, {len(chosen)} of {len(index)} images")


def neighbours_by_hand(subject: Subject) -> Finding:
    """Compare the neighbours of indexed images with a search in float64; each must find itself with similarity 1."""
    index, images = subject.stored()
    vectors = index.embeddings.double()
    errors = []
    for number in range(min(3, len(index))):
        embedding = embed(subject.classifier, images[number : number + 1])[0]
        errors.append(abs(index.neighbours(embedding, 1)[0].similarity - 1))
        is_other = (index.digests != index.digests[number]).any(1)
        best = (vectors[is_other] @ embedding.double()).sort(descending=True).values[:9].clamp(-1, 1)
        found = index.neighbours(embedding, 9, exclude_digest=image_digest(images[number]))
        given = torch.tensor([one.similarity for one in found], dtype=torch.float64)
        errors.append((given - best).abs().max().item() if len(best) else 0.0)
    return Finding(max(errors), f"{len(index)} images")


def _some_channels(index: Index) -> Iterator[tuple[str, int]]:
    """Yield a few (layer, channel), spread over the layers."""
    names = list(index.layers)
    generator = torch.Generator().manual_seed(0)
    for layer in names[:: math.ceil(len(names) / CHANNELS)]:
        yield layer, below(len(index.layers[layer].dead), generator)


def _missed(examples: ChannelExamples, peaks: dict[int, float]) -> int:
    """Return how many images fire clearly more than the last of the best, or less than the last of the lowest."""
    listed = {peak.image for peak in (*examples.best, *examples.lowest)}
    high, low = examples.best[-1].value, examples.lowest[-1].value
    slack = 1e-5 * max(abs(high), abs(low))  # batches of another size change the last digits
    others = [value for image, value in peaks.items() if image not in listed]
    return sum(value > high + slack or value < low - slack for value in others)
