"""The content of good answers, once their status and type are checked, and what an answer says went wrong."""

import io
from typing import Any

import httpx2
import numpy as np
from PIL import Image


def png(answer: httpx2.Response) -> Image.Image:
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png"), answer.text
    return Image.open(io.BytesIO(answer.content))


def array(answer: httpx2.Response) -> np.ndarray[Any, Any]:
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-npy"), answer.text
    loaded: np.ndarray[Any, Any] = np.load(io.BytesIO(answer.content), allow_pickle=False)
    return loaded


def body(answer: httpx2.Response) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json"), answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


def problem(answer: httpx2.Response) -> tuple[int, str]:
    """Return the status and the code."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]
