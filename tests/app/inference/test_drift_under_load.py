"""Drift of a real service: other pictures come while it answers, and its metrics tell so."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.server_process import PATIENCE_S, StartServer
from torchlight.model.canary import canary_distance
from torchlight.model.checkpoint import NoveltyFacts, load_checkpoint, save_checkpoint
from torchlight.model.images import prepare_image
from torchlight.model.network import embedding_size
from torchlight.training.evaluation.classification_metrics import infer_with_embeddings
from torchlight.training.evaluation.fit_novelty import distances_apart, fit_novelty

KNOWN, OTHERS = 300, 200
FILES = 10  # of a request


def plain(seed: int) -> bytes:
    """Draw a field of one colour, a little uneven."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(60, 200, 3) + generator.integers(-5, 6, (32, 32, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny network, which knows plain colours: it tells from others what it never saw."""
    known = load_checkpoint(tiny_checkpoint)
    network, spec = known.network, known.header.image_spec
    images = torch.stack([prepare_image(plain(seed), spec.resizing)[0] for seed in range(400)])
    size = embedding_size(network, known.header.network.architecture)
    logits, embeddings = infer_with_embeddings(network, images, spec, size)
    labels, learnt = logits.argmax(1), torch.arange(400) < 200
    distances = distances_apart(embeddings[learnt], labels[learnt], embeddings[~learnt], 3)
    novelty = fit_novelty(embeddings[learnt], labels[learnt], distances, labels[~learnt], logits[~learnt])
    facts = NoveltyFacts(200, "val", canary_distance(network, spec, novelty))
    path = tmp_path / "plain.safetensors"
    save_checkpoint(path, network, replace(known.header, novelty=facts), novelty=novelty)
    return path


def send(url: str, files: Sequence[bytes]) -> None:
    """Send files in requests side by side, each on a connection of its own."""

    def post(some: Sequence[bytes]) -> None:
        with httpx2.Client(base_url=url, timeout=PATIENCE_S) as client:
            answer = client.post("/v1/predict/batch", files=[("files", one) for one in some])
        assert answer.status_code == 200, answer.text

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(post, [files[start : start + FILES] for start in range(0, len(files), FILES)]))


def drift_of(url: str) -> dict[str, float]:
    families = text_string_to_metric_families(httpx2.get(f"{url}/metrics", timeout=PATIENCE_S).text)
    samples = (sample for family in families for sample in family.samples)
    return {one.name: one.value for one in samples if one.name.startswith("torchlight_drift")}


def test_other_pictures_are_found_within_two_hundred(
    start_server: StartServer, checkpoint: Path, picture: Callable[..., bytes]
) -> None:
    server = start_server(checkpoint=checkpoint, deadline_s=PATIENCE_S)
    send(server.url, [plain(seed) for seed in range(1_000, 1_000 + KNOWN)])
    before = drift_of(server.url)
    assert before["torchlight_drift"] < 1
    assert before["torchlight_drift_unknown_share"] < 0.3
    send(server.url, [picture(seed) for seed in range(OTHERS)])
    after = drift_of(server.url)
    assert after["torchlight_drift"] >= 1
    assert after["torchlight_drift_unknown_share"] > before["torchlight_drift_unknown_share"]
