"""Draws where the event loop's time goes, as a flame graph upside down: callers above, what they call below.

py-spy record --gil --rate 300 --duration 35 --format raw --output stacks.txt --pid WORKER
python docs/pictures/draw_flame.py stacks.txt docs/pictures/flame.png

WORKER is the process id of a worker under load; py-spy is no dependency of ours: `pip install py-spy`. Width is the
share of all samples in which the thread held Python's lock. Lines of one function are added up.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

ROOT = "serve (app/server/worker.py)"
LEAST = 0.004  # of all samples; thinner ones are left out
CHARACTER = 0.0056  # width of one, as a share of the picture's
FIRST = 2  # frames above are the event loop's own
COLOURS = {
    "app/": "#d97706",
    "model/": "#b45309",
    "fastapi/": "#94a3b8",
    "starlette/": "#94a3b8",
    "uvicorn/": "#64748b",
}


@dataclass
class Node:
    """A function called by those above it."""

    samples: int = 0
    children: "dict[str, Node]" = field(default_factory=dict)


def main() -> None:
    """Read stacks, draw them."""
    stacks, picture = Path(sys.argv[1]), Path(sys.argv[2])
    root = Node()
    for frames, samples in _read(stacks):
        node = root
        node.samples += samples
        for frame in frames:
            node = node.children.setdefault(frame, Node())
            node.samples += samples
    boxes = list(_boxes(root, 0.0, 0, root.samples))
    depth = 1 + max(level for _, _, level, _ in boxes)
    figure = Figure(figsize=(13, 0.27 * depth + 0.5), layout="constrained")
    axis = figure.subplots()
    axis.set(xlim=(0, 1), ylim=(depth, 0), yticks=[], xticks=[0, 0.25, 0.5, 0.75, 1])
    axis.set_xticklabels(["0", "25%", "50%", "75%", "100%"])
    axis.spines[:].set_visible(False)
    for left, width, level, name in boxes:
        colour = next((colour for part, colour in COLOURS.items() if f"({part}" in name), "#cbd5e1")
        axis.barh(level + 0.5, width, left=left, height=0.94, color=colour, edgecolor="white", linewidth=0.5)
        label, fitting = name.partition(" (")[0], int((width - 0.004) / CHARACTER)
        if fitting >= 4:
            text = label if len(label) <= fitting else f"{label[: fitting - 1]}\u2026"
            axis.text(left + 0.002, level + 0.52, text, va="center", fontsize=7.5)
    figure.savefig(picture, dpi=110)


def _read(path: Path) -> Iterator[tuple[list[str], int]]:
    """Yield each stack of the event loop, outermost first, and how often it was seen."""
    for line in path.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
        if ROOT in frames:
            yield frames[frames.index(ROOT) + FIRST :], int(samples)


def _boxes(node: Node, left: float, level: int, total: int) -> Iterator[tuple[float, float, int, str]]:
    """Yield left edge, width, level and name of all that is wide enough, widest first."""
    for name, child in sorted(node.children.items(), key=lambda item: -item[1].samples):
        width = child.samples / total
        if width >= LEAST:
            yield left, width, level, name
            yield from _boxes(child, left, level + 1, total)
        left += width


if __name__ == "__main__":
    main()
