"""The network and the preparation of images that all peers use. What they do with it is theirs."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from torchlight.model.checkpoint import load_checkpoint
from torchlight.model.images import RESIZE_RULES

CHECKPOINT = "TORCHLIGHT_CHECKPOINT"  # the environment variable that names the file, for peers as for ours


class Network:
    """Files -> answers, the whole way that a tutorial shows."""

    def __init__(self, threads: int | None = None, is_channels_last: bool = False) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        loaded = load_checkpoint(Path(os.environ[CHECKPOINT]))
        self.memory_format = torch.channels_last if is_channels_last else torch.contiguous_format
        self.network = loaded.network.eval().to(memory_format=self.memory_format)
        self.labels = loaded.header.class_names
        self.spec = loaded.header.image_spec

    def prepare(self, content: bytes) -> Tensor:
        """Return (3, S, S) float32, normalised."""
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        rule = RESIZE_RULES[self.spec.resize]
        border = rule.margin / 2 / (self.spec.size + rule.margin)  # a share of the square, cut off at each side
        square = ImageOps.fit(picture, (self.spec.size,) * 2, rule.resampling, bleed=border)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 255
        mean, std = torch.tensor(self.spec.mean), torch.tensor(self.spec.std)
        return (pixels - mean[:, None, None]) / std[:, None, None]

    def probabilities(self, images: Tensor) -> Tensor:
        """Return (N, K) for (N, 3, S, S)."""
        with torch.inference_mode():
            logits: Tensor = self.network(images.contiguous(memory_format=self.memory_format))
            return logits.softmax(dim=1)

    def describe(self, probabilities: Tensor) -> dict[str, Any]:
        """Return the labels of one image, most probable first, as our service does."""
        values, indices = probabilities.sort(descending=True)
        pairs = zip(indices.tolist(), values.tolist(), strict=True)
        return {"predictions": [{"label": self.labels[index], "probability": value} for index, value in pairs]}
