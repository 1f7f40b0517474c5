"""How unknown images are told from known ones, as the benchmark counts it."""

import torch

from benchmarks.unknown import area_under_roc


def test_area_under_the_curve_is_the_share_of_pairs_in_order() -> None:
    assert area_under_roc(torch.tensor([1.0, 2]), torch.tensor([2.0, 3])) == 0.875
