"""Defaults that several packages share. Imports nothing of ours, so that reading the settings is quick."""

from pathlib import Path

PRETRAINED = Path(__file__).parent / "pretrained" / "torchlight-cifar10.safetensors"
MAX_PIXELS = 40_000_000  # a 40-megapixel camera; about 160 MB while being decoded
COVERAGE = 0.9  # share of images whose answer set shall hold the true label
LOWEST_COVERAGE = 0.5  # below it a set would be the most probable label nearly always


def cache_folder() -> Path:
    """Return where files are kept that can be made again: deleting it is always safe."""
    return Path.home() / ".cache" / "torchlight"
