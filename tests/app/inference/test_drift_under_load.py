"""Drift of a real service: other pictures come while it answers, and its metrics tell so."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx2
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.novelty_of import plain_images
from tests.server_process import PATIENCE_S, StartServer

KNOWN, OTHERS = 300, 200
FILES = 10  # of a request


def plain_photos(number: int) -> list[bytes]:
    """Draw files that the tiny network knows."""
    files = []
    for image in plain_images(number, 32, seed=4):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
        files.append(file.getvalue())
    return files


def send(url: str, files: Sequence[bytes]) -> None:
    """Send files in requests side by side."""

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


def test_other_pictures_are_found_within_two_hundred(start_server: StartServer, picture: Callable[..., bytes]) -> None:
    server = start_server(deadline_s=PATIENCE_S)
    assert drift_of(server.url) == {}
    send(server.url, plain_photos(KNOWN))
    before = drift_of(server.url)
    assert before["torchlight_drift"] < 1
    assert before["torchlight_drift_distance"] < 1
    assert before["torchlight_drift_unknown_share"] < 0.3
    send(server.url, [picture(seed) for seed in range(OTHERS)])
    after = drift_of(server.url)
    assert after["torchlight_drift"] >= 1
    assert after["torchlight_drift_distance"] > 1
    assert after["torchlight_drift_unknown_share"] > 0.9
