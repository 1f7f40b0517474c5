"""Private or undocumented parts of libraries that ``model/`` relies on. Each test names the part and its place."""

import copy
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, fx, nn
from torchvision import models


def test_torch_keeps_the_hooks_of_a_module_under_the_names_that_the_self_test_counts() -> None:
    module = nn.Linear(1, 1)
    module.register_forward_hook(lambda *_: None)
    module.register_forward_pre_hook(lambda *_: None)
    module.register_full_backward_hook(lambda *_: None)
    module.register_full_backward_pre_hook(lambda *_: None)
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    counts = {name: len(getattr(module, name, ())) for name in names}
    assert counts == dict.fromkeys(names, 1), "torch.nn.Module._*_hooks: model/checks/concurrency.py counts none"


class Added(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(images + images) + images


def test_fx_names_functions_and_numbers_them_as_the_graph_expects() -> None:
    names = [node.name for node in fx.symbolic_trace(Added()).graph.nodes if node.op == "call_function"]
    assert names == ["add", "relu", "add_1"], "torch.fx names nodes otherwise: model/graph.py, _NamingTracer"


class Recorded(fx.Tracer):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []

    def call_module(self, m: nn.Module, forward, args, kwargs):  # type: ignore[no-untyped-def]
        self.seen.append(("call_module", self.path_of_module(m)))
        return super().call_module(m, forward, args, kwargs)

    def create_proxy(self, kind, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.seen.append(("create_proxy", kind))
        return super().create_proxy(kind, *args, **kwargs)


def test_fx_traces_every_step_through_the_two_methods_that_the_graph_overrides() -> None:
    tracer = Recorded()
    tracer.trace(nn.Sequential(nn.Linear(1, 1), Added()))
    assert tracer.seen == [
        ("create_proxy", "placeholder"),
        ("call_module", "0"),
        ("create_proxy", "call_module"),
        ("call_module", "1"),
        *[("create_proxy", "call_function")] * 3,
    ], "torch.fx.Tracer calls call_module or create_proxy otherwise: model/graph.py, _NamingTracer"


@pytest.mark.parametrize("layer", [nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU])
def test_torch_layers_decide_by_their_attribute_whether_they_work_in_place(layer: type[nn.Module]) -> None:
    module = layer(inplace=True)
    module.__dict__["inplace"] = False
    images = torch.ones(2)
    assert module(images) is not images, "nn.*.inplace: model/graph.py, _twin"
    assert "inplace" in vars(module), "nn.*.inplace is no plain attribute: model/graph.py, _twin"


def test_deepcopy_of_a_module_takes_tensors_from_its_memo() -> None:
    module = nn.BatchNorm2d(1)
    tensors = [*module.parameters(), *module.buffers()]
    twin = copy.deepcopy(module, memo={id(tensor): tensor for tensor in tensors})
    shared = all(a is b for a, b in zip(tensors, [*twin.parameters(), *twin.buffers()], strict=True))
    assert shared, "copy.deepcopy of nn.Module ignores its memo: model/graph.py, _twin, doubles the weights"


def test_safetensors_writes_its_header_as_compact_json_that_can_be_reordered_in_place(tmp_path: Path) -> None:
    metadata = {"b": '{"ü": "\\n"}', "a": "\u2028"}
    safetensors.torch.save_file({"w": torch.zeros(2, 3), "v": torch.zeros(1)}, tmp_path / "file", metadata)
    content = (tmp_path / "file").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    ours = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
    assert len(ours) == length, "safetensors writes longer or shorter JSON: model/files/tensor_file.py, _write"


def test_pillow_says_in_words_how_many_pixels_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(Image.DecompressionBombError, match=r"\(600 pixels\)"):  # else: model/images.py, decode_image
        Image.open(io.BytesIO(file.getvalue()))


def test_pillow_names_the_file_object_of_an_image_that_it_does_not_know() -> None:
    with pytest.raises(Image.UnidentifiedImageError, match="<_io"):  # else: model/images.py, _reason
        Image.open(io.BytesIO(b"\x89PNG"), formats=["PNG"])


def test_torchvision_presets_have_a_crop_size() -> None:
    size = models.get_model_weights("resnet18").DEFAULT.transforms().crop_size
    assert size == [224], "torchvision's presets have no crop_size: model/network.py, default_image_size"


HIDDEN = """
import sys
sys.modules["openvino_telemetry"] = None
import openvino
del sys.modules["openvino_telemetry"]
from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__)
"""


def test_openvino_takes_a_stub_for_good_if_its_reporter_is_missing_while_it_is_imported() -> None:
    command = [sys.executable, "-c", HIDDEN]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    place = "openvino looks for openvino_telemetry otherwise: model/engines/openvino_network.py, import_openvino"
    assert said == "openvino.tools.ovc.telemetry_stub\n", place
