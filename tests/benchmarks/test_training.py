"""The benchmark of the training loop measures every part once, and its ratios are what they say."""

import json

import pytest
from rich.console import Console

from benchmarks.training import Figures, Workload, as_json, count_flops, images_per_s, measure, table
from torchlight.model.network import NetworkConfig, build_network, count_multiply_adds

TINY = Workload(batch_size=4, steps=2, matrix_size=32, workers=0, architecture="lenet5")
FIGURES = Figures("bfloat16", 500_000_000, ours=400, plain=160, peaks={"float32": 200e9, "bfloat16": 400e9})


def rows(figures: Figures) -> list[list[str]]:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table(figures))
    return [line.split("  ") for line in capture.get().splitlines()]


def test_every_part_is_measured_and_has_a_row() -> None:
    figures = measure(TINY, rounds=1)
    assert min(figures.ours, figures.plain, *figures.peaks.values()) > 0
    assert [line[0].strip() or "head" for line in rows(figures)] == [
        "head",
        f"our loop, {figures.precision}",
        "plain loop, float32",
        "matrix product, float32",
        "matrix product, bfloat16",
        "ours / plain",
    ]


def test_ratios_are_those_of_the_figures_beside_them() -> None:
    cells = {line[0].strip(): [cell.strip() for cell in line[1:] if cell.strip()] for line in rows(FIGURES)}
    assert cells["our loop, bfloat16"] == ["400", "200", "100%", "50%"]
    assert cells["plain loop, float32"] == ["160", "80", "40%", "20%"]
    assert cells["matrix product, float32"] == ["200"]
    assert cells["matrix product, bfloat16"] == ["400"]
    assert cells["ours / plain"] == ["2.50"]


def test_the_json_says_the_same() -> None:
    document = json.loads(as_json(FIGURES, TINY, rounds=1))
    assert document["images_per_s"] == {"ours": 400, "plain": 160}
    assert document["ours_to_plain"] == pytest.approx(2.5)
    assert document["ours_of_float32_peak"] == pytest.approx(1.0)
    assert document["ours_of_own_peak"] == pytest.approx(0.5)
    assert document["plain_of_float32_peak"] == pytest.approx(0.4)


def test_speed_leaves_the_first_step_out() -> None:
    assert images_per_s(TINY, [10.0, 11.0, 14.0]) == pytest.approx(2 * 4 / 4)


def test_operations_are_three_times_the_forward_pass_less_the_gradient_of_the_images() -> None:
    forward = 2 * count_multiply_adds(build_network(NetworkConfig("lenet5", 10)), 32)
    first_layer = 2 * 6 * 28 * 28 * 5 * 5 * 3
    assert count_flops(TINY) == 3 * forward - first_layer
