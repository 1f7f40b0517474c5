"""What tells the checkpoint `imagenet` that a photo is unlike its thousand kinds, made and measured.

python -m benchmarks.imagenet_novelty KNOWN STRANGERS...

KNOWN holds folders of photos that are named like classes of the network, each of STRANGERS images of anything else, in
folders or not. Its training photos cannot be had, so the rows of its last layer stand for them: each points to where
photos of its class lie. Writes model/pretrained/imagenet.novelty.safetensors, and prints what that refuses.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.unknown import area_under_roc
from torchlight.model.canary import add_canary_distance
from torchlight.model.checkpoint import Checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.engines.engine import layer_outputs
from torchlight.model.engines.folder_predictions import find_image_files
from torchlight.model.files.tensor_file import save_tensors
from torchlight.model.imagenet import NOVELTY, NOVELTY_KIND, build_imagenet
from torchlight.model.images import prepare_image
from torchlight.model.network import classifier_head
from torchlight.model.uncertainty.novelty import THRESHOLD, Novelty, Plane, entropy, join_ranks, rank_among, to_tensors
from torchlight.model.views.embedding import embedding_layer, to_embeddings
from torchlight.training.evaluation.fit_novelty import PUBLISHED_WEIGHT

DIRECTIONS = 128  # a thousand classes need more than ten do: with 64 half as many drawings are refused
BATCH = 8


def main() -> None:
    """Make, write, measure and print."""
    network, header = build_imagenet()
    checkpoint = Checkpoint(header, network, "", Path("imagenet"))
    answers = Answers(checkpoint)
    known = {folder.name: answers.of(folder) for folder in sorted(Path(sys.argv[1]).iterdir())}
    embeddings, probabilities = (torch.cat(parts) for parts in zip(*known.values(), strict=True))
    weight, measured_on = classifier_head(checkpoint.network).weight, f"photos of {', '.join(known)}"
    novelty = fit_by_weights(weight, embeddings, probabilities, measured_on)
    novelty = add_canary_distance(novelty, checkpoint.network, checkpoint.header.image_spec)
    save_tensors(NOVELTY, NOVELTY_KIND, to_tensors(novelty), {"facts": novelty.facts})

    table = Table("images", "number", "refused", "AUROC", "AUROC of the top probability", box=None)
    usual = novelty.measure(embeddings, probabilities).p_values
    table.add_row("known", str(len(usual)), f"{(usual <= THRESHOLD).mean():.1%}")
    for folder in map(Path, sys.argv[2:]):
        strange, theirs = answers.of(folder)
        p_values = novelty.measure(strange, theirs).p_values
        areas = (
            area_under_roc(-torch.from_numpy(usual), -torch.from_numpy(p_values)),
            area_under_roc(-probabilities.amax(1), -theirs.amax(1)),
        )
        refused = f"{(p_values <= THRESHOLD).mean():.1%}"
        table.add_row(folder.name, str(len(p_values)), refused, *(f"{area:.3f}" for area in areas))
    Console(width=120).print(table)


class Answers:
    """The embeddings and the probabilities of a network for image files."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        classifier = Classifier(checkpoint, torch.device("cpu"))
        self._resizing = classifier.spec.resizing
        self._run = layer_outputs(classifier, [embedding_layer(classifier.graph), classifier.graph.output])

    def of(self, folder: Path) -> tuple[Tensor, Tensor]:
        """Return (N, D) and (N, K) of all images below a folder."""
        embeddings, probabilities = zip(*self._batches(find_image_files([folder])), strict=True)
        return torch.cat(embeddings), torch.cat(probabilities)

    def _batches(self, files: list[Path]) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(files), BATCH):
            some = files[start : start + BATCH]
            outputs, logits = self._run(
                torch.stack([prepare_image(one.read_bytes(), self._resizing)[0] for one in some])
            )
            yield to_embeddings(outputs), logits.softmax(1)


def fit_by_weights(weight: Tensor, embeddings: Tensor, probabilities: Tensor, measured_on: str) -> Novelty:
    """Return what tells known from unknown, with the directions of the weights in place of training images.

    Args:
        weight: (K, D) of the last layer.
        embeddings, probabilities: (N, D) and (N, K) of known photos.
        measured_on: what those are.
    """
    rows = F.normalize(weight)
    mean = rows.mean(0)
    directions = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:DIRECTIONS].half().float()
    references = ((rows - mean) @ directions.T).half().float()
    residual = ((rows - mean).square().sum(1) - references.square().sum(1)).mean().item()
    number = len(weight)
    plane = Plane(mean.numpy(), directions.numpy(), references.numpy(), np.arange(number), residual, number)
    distances = plane.class_distances(*plane.project(embeddings.numpy())).min(1)
    entropies = entropy(probabilities.numpy())
    ranked = np.sort(distances).astype(np.float64), np.sort(entropies).astype(np.float64)
    ranks = rank_among(ranked[0], distances), rank_among(ranked[1], entropies)
    scores = np.sort(join_ranks(*ranks, PUBLISHED_WEIGHT))
    scales = np.ones(number, np.float32)
    return Novelty(plane, scales, *ranked, scores, PUBLISHED_WEIGHT, len(embeddings), measured_on)


if __name__ == "__main__":
    main()
