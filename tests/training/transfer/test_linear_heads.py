"""Logistic regression for many folds at once: the same minimum as a general optimiser finds for each by itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torchlight.training.transfer import linear_heads
from torchlight.training.transfer.linear_heads import find_basis, fit_heads, head_logits, mean_linear, to_linear


def draw_features(photos: int, size: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Return features in clusters that overlap, and their classes."""
    generator = torch.Generator().manual_seed(photos + size)
    labels = torch.arange(photos) % classes
    centres = torch.randn(classes, size, generator=generator)
    noise = torch.randn(photos, size, generator=generator)
    return (centres[labels] + 2 * noise) / size**0.5 + 0.7, labels


def minimise(features: Tensor, labels: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Return weight (K, D) and bias (K,) by a general optimiser in float64."""
    weight = torch.zeros(int(labels.max()) + 1, features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(weight), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(features.double() @ weight.T + bias, labels) + strength / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach(), bias.detach()


@pytest.mark.parametrize(("photos", "size"), [(40, 200), (200, 12)], ids=["few photos", "few features"])
@pytest.mark.parametrize("strength", [1e-2, 1e-4])
def test_heads_are_the_minimum_that_a_general_optimiser_finds(photos: int, size: int, strength: float) -> None:
    features, labels = draw_features(photos, size)
    learnt = torch.stack([torch.arange(photos) % 4 != 0, torch.ones(photos, dtype=torch.bool)])
    basis = find_basis(features)
    heads = fit_heads(basis, labels, 3, strength, learnt)
    logits = head_logits(basis, heads)
    for row, seen in enumerate(learnt):
        weight, bias = minimise(features[seen], labels[seen], strength)
        expected = (features.double() @ weight.T + bias).softmax(1)
        assert (logits[row].softmax(1) - expected).abs().max() < 0.01


def test_heads_on_directions_of_some_photos_are_the_minimum_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_heads, "MAX_DIRECTIONS", 90)
    features, labels = draw_features(400, 200, classes=2)
    basis = find_basis(features)
    logits = head_logits(basis, fit_heads(basis, labels, 2, 1e-3, torch.ones(1, 400, dtype=torch.bool)))[0]
    weight, bias = minimise(basis.coordinates, labels, 1e-3)
    expected = (basis.coordinates.double() @ weight.T + bias).softmax(1)
    assert (logits.softmax(1) - expected).abs().max() < 0.01


def test_a_head_is_the_same_as_a_linear_layer_on_the_features() -> None:
    features, labels = draw_features(50, 80)
    basis = find_basis(features)
    heads = fit_heads(basis, labels, 3, 1e-3, torch.ones(1, 50, dtype=torch.bool))
    weight, bias = to_linear(basis, heads.weights[0], heads.biases[0])
    assert torch.allclose(F.linear(features, weight, bias), head_logits(basis, heads)[0], atol=1e-4)


def test_the_mean_of_layers_gives_the_mean_of_their_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [(torch.randn(3, 8, generator=generator), torch.randn(3, generator=generator)) for _ in range(3)]
    features = torch.randn(5, 8, generator=generator)
    expected = torch.stack([F.linear(features, *layer) for layer in layers]).mean(0)
    assert torch.allclose(F.linear(features, *mean_linear(layers)), expected, atol=1e-6)


def test_a_class_that_was_not_learnt_is_improbable_but_not_impossible() -> None:
    features, labels = draw_features(30, 40)
    basis = find_basis(features)
    heads = fit_heads(basis, labels, 3, 1e-3, (labels != 2)[None])
    probabilities = head_logits(basis, heads)[0].softmax(1)
    assert torch.isfinite(probabilities).all()
    assert (probabilities[labels == 2].argmax(1) != 2).all()


def test_equal_features_give_the_share_of_each_class() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    basis = find_basis(torch.ones(4, 6))
    heads = fit_heads(basis, labels, 2, 1e-3, torch.ones(1, 4, dtype=torch.bool))
    assert head_logits(basis, heads)[0, 0].softmax(0).tolist() == pytest.approx([0.75, 0.25], abs=0.02)
