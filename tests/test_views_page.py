"""docs/views.md shows every view, with the pictures that its script makes, and at addresses that there are."""

import ast
import re
from pathlib import Path

from PIL import Image

from torchlight.app.main import create_app
from torchlight.app.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "views.md").read_text()
SHOWN = re.findall(r"!\[[^]]+\]\((pictures/\S+\.png)\)", TEXT)
MEGABYTE = 1_000_000


def made() -> set[str]:
    """Return the files that the script writes, read from its source: nothing is run."""
    tree = ast.parse((DOCS / "pictures" / "draw_views.py").read_text())
    methods = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = {name for name in methods if name.endswith((".png", ".json")) and "/" not in name and len(name) > 5}
    evidence = ("grad_cam", "saliency", "input_x_gradient", "integrated_gradients", "occlusion")
    assert methods.issuperset(evidence)
    return names | {f"{method}.png" for method in evidence}


def test_page_shows_what_the_script_makes_and_all_of_it() -> None:
    linked = {Path(path).name for path in [*SHOWN, *re.findall(r"\((pictures/\S+\.json)\)", TEXT)]}
    assert linked == made()
    assert [name for name in linked if not (DOCS / "pictures" / name).exists()] == []


def test_pictures_are_of_one_checkpoint_and_small() -> None:
    models = set()
    for path in SHOWN:
        with Image.open(DOCS / path) as image:
            models.add(image.info["model"])
    assert len(models) == 1
    assert sum(file.stat().st_size for file in (DOCS / "pictures").iterdir()) < 2 * MEGABYTE


def test_addresses_on_the_page_are_those_there_are(tmp_path: Path) -> None:
    there_are = create_app(Settings(store_dir=tmp_path)).openapi()["paths"]
    patterns = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in there_are]
    named = set(re.findall(r"`(/v1/[^`?]+)", TEXT))
    assert len(named) > 8
    assert [path for path in named if not any(pattern.fullmatch(path) for pattern in patterns)] == []
