"""The plain baseline for a folder of photos: frozen features and scikit-learn's logistic regression, in forty lines.

The features are the last layer's of an EfficientNet-Lite with its published weights, each photo's brought to length 10;
scikit-learn's regularisation stays at its default, C = 1.

    python -m benchmarks.logistic_regression photos head.npz efficientnet_lite0

writes the fitted head. Knows nothing of validation, calibration or a checkpoint.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from torchlight.model.images import normalise, prepare_image
from torchlight.model.network import (
    NetworkConfig,
    build_network,
    default_image_size,
    load_pretrained,
    published_image_spec,
)

LENGTH = 10
Floats = NDArray[np.float32]


def list_photos(folder: Path) -> tuple[list[Path], NDArray[np.int64]]:
    """Return the photos of class folders, and the (N,) indices of their classes in alphabetical order."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    photos = [(photo, index) for index, path in enumerate(classes) for photo in sorted(path.iterdir())]
    return [photo for photo, _ in photos], np.array([index for _, index in photos])


def compute_features(photos: Sequence[Path], architecture: str, batch_size: int = 32) -> Floats:
    """Return (N, 1280) float32, each row of length ``LENGTH``."""
    network = build_network(NetworkConfig(architecture, 1000))
    spec = published_image_spec(architecture, default_image_size(architecture))
    load_pretrained(network, architecture)
    network.fc = torch.nn.Identity()
    network.eval()
    features = []
    with torch.inference_mode():
        for start in range(0, len(photos), batch_size):
            files = photos[start : start + batch_size]
            images = torch.stack([prepare_image(file.read_bytes(), spec.resizing)[0] for file in files])
            features.append(network(normalise(images, spec)))  # (B, 1280)
    return (LENGTH * torch.nn.functional.normalize(torch.cat(features))).numpy()


def fit_head(photos: Path, out: Path, architecture: str) -> None:
    """Fit the regression to all photos of a folder, and write its weights (K, 1280) and biases (K,)."""
    files, labels = list_photos(photos)
    regression = LogisticRegression(max_iter=1000).fit(compute_features(files, architecture), labels)
    weight, bias = regression.coef_, regression.intercept_
    if len(weight) == 1:  # two classes: scikit-learn keeps the second one's logit alone
        weight, bias = np.concatenate([0 * weight, weight]), np.array([0, bias[0]])
    np.savez(out, weight=weight, bias=bias)


if __name__ == "__main__":
    fit_head(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
