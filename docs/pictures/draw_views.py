"""Make the pictures of docs/views.md and README.md: one of each view, from a real server with the checkpoint we ship.

python docs/pictures/draw_views.py

The index, for the views that need one, is of pictures drawn here, so that nobody else's are in this repository.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHECKPOINT = ROOT / "model" / "pretrained" / "torchlight-cifar10.safetensors"
PHOTO = HERE / "ship.jpg"
LOOKED_AT = "relu3"  # whose strongest units are shown
EACH = 30  # drawn pictures of a class
SIDE = 96

Colour = tuple[int, int, int]
Paint = Callable[[ImageDraw.ImageDraw, Callable[[float, float], float], Colour, Colour], None]


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = Path(shutil.copy(CHECKPOINT, folder))
        draw_data_set(folder / "drawn")
        subprocess.run([*COMMAND, "index", checkpoint, folder / "drawn"], check=True)
        with served(checkpoint, folder / "store") as url, httpx2.Client(base_url=url, timeout=60) as client:
            image = client.post("/v1/images", files={"file": PHOTO.read_bytes()}).headers["Location"]
            for file, address in views(client, image).items():
                answer = client.get(address)
                assert answer.status_code == 200, answer.text
                (HERE / file).write_bytes(answer.content)
                print(f"{file:28} {len(answer.content) / 1e3:6.0f} kB  {address}")


def views(client: httpx2.Client, image: str) -> dict[str, str]:
    """Return the file of each view and where the service has it."""
    digest = image.rpartition("/")[2]
    unit, y, x = strongest_unit(client, image)
    evidence = {
        f"{method}.png": f"{image}/attributions/{method}.png"
        for method in ("grad_cam", "saliency", "input_x_gradient", "integrated_gradients", "occlusion")
    }
    return {
        "input.png": f"{image}/input.png",
        "activations.png": f"{image}/activations/conv1.png",
        "map.png": f"{image}/activations/{LOOKED_AT}/{unit}.png",
        "filters.png": "/v1/layers/conv1/filters.png",
        "filter.png": "/v1/layers/conv2/filters/0.png?folded=true",
        "receptive_field.png": f"/v1/layers/{LOOKED_AT}/receptive-field.png?y={y}&x={x}&image={digest}",
        "hires_cam.png": f"{image}/attributions/hires_cam.png",
        "hires_cam_versus.png": f"{image}/attributions/hires_cam.png?target=ship&target_vs=airplane",
        **evidence,
        "reconstruction.png": f"{image}/reconstructions/{LOOKED_AT}/{unit}.png",
        "unit.png": f"/v1/layers/{LOOKED_AT}/units/{unit}.png",
        "neighbours.png": f"{image}/neighbours.png",
        "trace.json": f"{image}/trace/conv1/5/10/12.json",
    }


def strongest_unit(client: httpx2.Client, image: str) -> tuple[int, int, int]:
    """Return the channel with the largest activation for the photo, and its row and column."""
    rows = client.get(f"{image}/activations/{LOOKED_AT}.json").json()["statistics"]
    channel = max(rows, key=lambda row: row["max"])["channel"]
    values = np.array(client.get(f"{image}/activations/{LOOKED_AT}/{channel}.json").json()["values"])
    y, x = np.unravel_index(values.argmax(), values.shape)
    return channel, int(y), int(x)


COMMAND = [sys.executable, "-m", "torchlight"]


@contextlib.contextmanager
def served(checkpoint: Path, store: Path) -> Iterator[str]:
    """Run ``torchlight serve`` on a free port, and yield its address once it is ready."""
    environment = os.environ | {"TORCHLIGHT_STORE_DIR": str(store), "TORCHLIGHT_DEADLINE_S": "60"}
    command = [*COMMAND, "serve", "--checkpoint", str(checkpoint), "--port", "0"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        assert process.stderr is not None
        try:
            greeting = process.stderr.readline()
            found = re.search(r"http://[^/\s]+", greeting)
            assert found, greeting + process.stderr.read()
            while httpx2.get(f"{found[0]}/readyz", timeout=60).status_code != 200:
                assert process.poll() is None
            yield found[0]
        finally:
            process.terminate()


def draw_data_set(root: Path) -> None:
    """Fill a folder for each class with simple pictures of it, no two alike."""
    for index, (name, paint) in enumerate(PAINTERS.items()):
        (root / name).mkdir(parents=True)
        for number in range(EACH):
            draw(paint, np.random.default_rng([index, number])).save(root / name / f"{number}.png")


def draw(paint: Paint, generator: np.random.Generator) -> Image.Image:
    """Return one picture: a thing of two random colours, somewhere on a random ground."""
    high, low, body, trim = (tuple(map(int, colour)) for colour in generator.integers(20, 236, (4, 3)))
    rows = np.linspace(0, 1, SIDE)[:, None, None]
    ground = np.where(rows < generator.uniform(0.5, 0.8), high, low) + generator.normal(0, 8, (SIDE, SIDE, 1))
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    size, left, top = generator.uniform(0.6, 0.95), *generator.uniform(0, 0.2, 2)
    is_mirrored = bool(generator.integers(2))

    def place(value: float, axis: float) -> float:
        share = 1 - value if is_mirrored and axis == 0 else value
        return SIDE * (share * size + (left if axis == 0 else top))

    paint(ImageDraw.Draw(image), place, body, trim)
    return image.filter(ImageFilter.GaussianBlur(0.8))


def polygon(painter: ImageDraw.ImageDraw, place: Callable[[float, float], float], corners: str, fill: Colour) -> None:
    """Fill the shape whose corners are written as ``x,y x,y ...`` in hundredths."""
    points = [corner.split(",") for corner in corners.split()]
    painter.polygon([(place(int(x) / 100, 0), place(int(y) / 100, 1)) for x, y in points], fill=fill)


def disc(
    painter: ImageDraw.ImageDraw, place: Callable[[float, float], float], at: tuple[float, float, float], fill: Colour
) -> None:
    """Fill the circle around (x, y) with that radius, all as shares."""
    x, y, radius = at
    across = sorted((place(x - radius, 0), place(x + radius, 0)))
    painter.ellipse((across[0], place(y - radius, 1), across[1], place(y + radius, 1)), fill=fill)


def things(*parts: str | tuple[float, float, float]) -> Paint:
    """Return a painter of shapes in turn: the first of each kind in the body's colour, the next in the trim's."""

    def paint(painter: ImageDraw.ImageDraw, place: Callable[[float, float], float], body: Colour, trim: Colour) -> None:
        for number, part in enumerate(parts):
            fill = trim if number % 2 else body
            if isinstance(part, str):
                polygon(painter, place, part, fill)
            else:
                disc(painter, place, part, fill)

    return paint


WHEELS = ((0.25, 0.78, 0.1), (0.25, 0.78, 0.04), (0.78, 0.78, 0.1), (0.78, 0.78, 0.04))
PAINTERS: dict[str, Paint] = {
    "airplane": things(
        "2,50 20,44 90,44 100,50 90,56 20,56",
        "40,46 62,12 72,12 62,46",
        "40,54 62,88 72,88 62,54",
        "4,48 0,28 10,28 18,46",
    ),
    "automobile": things("4,76 4,58 24,54 36,38 66,38 80,54 98,60 98,76", "38,42 50,42 50,54 30,54", *WHEELS),
    "bird": things(
        "20,50 45,38 75,45 98,38 80,58 50,66 30,62", "45,48 60,20 78,50", (0.2, 0.46, 0.1), "12,44 0,48 12,50"
    ),
    "cat": things(
        "26,40 28,12 44,28",
        "56,28 72,12 74,40",
        (0.5, 0.5, 0.28),
        "36,44 44,44 44,52 36,52",
        "50,58 54,62 46,62",
        "56,44 64,44 64,52 56,52",
    ),
    "deer": things(
        "24,50 70,46 76,62 30,64",
        "30,14 34,14 40,34 34,34",
        "18,34 36,28 40,52 28,54",
        "30,60 34,60 34,94 30,94",
        "68,58 72,58 72,94 68,94",
    ),
    "dog": things(
        "26,48 74,46 78,66 30,68",
        "10,30 16,46 22,26",
        (0.22, 0.38, 0.14),
        "32,66 38,66 38,92 32,92",
        "70,64 76,64 76,92 70,92",
    ),
    "frog": things(
        (0.5, 0.62, 0.3),
        (0.34, 0.34, 0.1),
        (0.66, 0.34, 0.1),
        (0.34, 0.34, 0.04),
        "30,68 70,68 60,76 40,76",
        (0.66, 0.34, 0.04),
    ),
    "horse": things(
        "24,46 74,44 80,62 28,62",
        "8,24 26,18 34,46 24,50",
        "30,58 36,58 36,96 30,96",
        "24,18 32,30 38,48 32,46",
        "70,56 76,56 76,96 70,96",
    ),
    "ship": things(
        "2,62 98,58 86,82 14,82", "20,34 40,34 40,60 20,60", "26,18 34,18 34,34 26,34", "46,48 84,46 84,58 46,59"
    ),
    "truck": things("2,74 2,28 62,28 62,74", "66,74 66,40 84,40 96,58 96,74", *WHEELS),
}


if __name__ == "__main__":
    main()
