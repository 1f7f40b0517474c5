"""The served function as a file for other programs: ONNX, or a program of ``torch.export``.

What is exported is :meth:`model.classifier.Classifier.probabilities` whole, normalisation and softmax included:
``images`` (N, 3, S, S) uint8 RGB, resized by the rule in the metadata, -> ``probabilities`` (N, K) float32. The
metadata is a flat map of text under the names of the checkpoint's header, plus ``digest``. Decoding and resizing stay
outside.
"""

import copy
import dataclasses
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from torchlight.model.classifier import Classifier
from torchlight.model.engines.parity import BATCH_SIZES, TOLERANCE, InferenceFunction, largest_difference
from torchlight.model.errors import ExportError
from torchlight.model.files.atomic import replacing
from torchlight.model.images import ImageSpec, normalise

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class ServedFunction(nn.Module):
    """``Classifier.probabilities`` as one module that can be traced."""

    def __init__(self, network: nn.Module, spec: ImageSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, K) float32 probabilities of images (N, 3, S, S) uint8 RGB."""
        logits: Tensor = self.network(normalise(images, self.spec))
        return logits.softmax(dim=1)


def export_network(classifier: Classifier, path: Path, *, dynamic_batch: bool = True, overwrite: bool = False) -> float:
    """Write the file, once the program in it gives the classifier's answers.

    Args:
        classifier: on the CPU; not changed.
        path: its suffix is the format: ``.onnx`` or ``.pt2``.
        dynamic_batch: take any number of images at once, at least one; without it, exactly one.
        overwrite: replace an older file.

    Returns:
        The largest difference between a probability of the file and the classifier's, at most ``TOLERANCE``.

    Raises:
        ExportError: another suffix, a file in the way, a package missing, a network that cannot be exported, or a
            difference above ``TOLERANCE``; ``path`` is as it was.
        OSError: the folder cannot be written.
    """
    if path.suffix not in FORMATS:
        raise ExportError(f"export file {path} ends in {path.suffix!r}; the formats are {' and '.join(FORMATS)}")
    if path.exists() and not overwrite:
        raise ExportError(f"export file {path} exists; choose another name, or overwrite it with --force")
    write, read = FORMATS[path.suffix]
    _require_packages(path.suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        try:
            write(_trace(classifier, dynamic_batch), temporary, export_metadata(classifier))
        except RuntimeError as error:  # raised by both exporters
            architecture = classifier.checkpoint.header.network.architecture
            reason = str(error).strip().partition("\n")[0]
            raise ExportError(f"{architecture} cannot be exported to {path.suffix} ({reason})") from error
        difference = largest_difference(classifier, read(temporary), BATCH_SIZES if dynamic_batch else (1,))
        if not difference <= TOLERANCE:
            raise ExportError(
                f"export file {path} is not kept: its probabilities differ from the network's by up to "
                f"{difference:.2g}; the limit is {TOLERANCE:g}"
            )
        with replacing(path) as whole:
            os.replace(temporary, whole)
    return difference


def export_metadata(classifier: Classifier) -> dict[str, str]:
    """Return the metadata for other programs: JSON documents, and the ``digest``."""
    header = classifier.checkpoint.header
    documents = {
        "network": dataclasses.asdict(header.network),
        "class_names": header.class_names,
        "image_spec": dataclasses.asdict(header.image_spec),
        "versions": dict(header.versions) | {"export": torch.__version__},
    }
    texts = {name: json.dumps(value, sort_keys=True, ensure_ascii=False) for name, value in documents.items()}
    return texts | {"digest": classifier.digest}


def _trace(classifier: Classifier, dynamic_batch: bool) -> ExportedProgram:
    size = classifier.spec.size
    number = 2 if dynamic_batch else 1  # an example of one image would be taken for a fixed size
    network = copy.deepcopy(classifier.network).to(memory_format=torch.contiguous_format)  # the layout of files
    return torch.export.export(
        ServedFunction(network, classifier.spec).eval(),
        (torch.zeros(number, 3, size, size, dtype=torch.uint8),),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)} if dynamic_batch else None,),
    )


def _write_onnx(program: ExportedProgram, path: Path, texts: Mapping[str, str]) -> None:
    is_dynamic = any(program.range_constraints)
    exported = torch.onnx.export(
        program,
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes={"images": {0: "batch"}} if is_dynamic else None,  # only the name of the axis
        dynamo=True,
        verbose=False,
    )
    assert exported is not None
    exported.model.metadata_props.update(texts)
    exported.save(path)


def _read_onnx(path: Path) -> InferenceFunction:
    import onnxruntime  # optional: the extra "export"

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["probabilities"], {"images": images.numpy()})[0])


def _write_program(program: ExportedProgram, path: Path, texts: Mapping[str, str]) -> None:
    torch.export.save(program, path, extra_files=dict(texts))


def _read_program(path: Path) -> InferenceFunction:
    module = torch.export.load(path).module()
    return lambda images: module(images)


FORMATS: dict[
    str, tuple[Callable[[ExportedProgram, Path, Mapping[str, str]], None], Callable[[Path], InferenceFunction]]
] = {
    ".onnx": (_write_onnx, _read_onnx),
    ".pt2": (_write_program, _read_program),
}


def _require_packages(suffix: str) -> None:
    missing = [name for name in ONNX_PACKAGES if suffix == ".onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"export to .onnx needs {', '.join(ONNX_PACKAGES)}; missing: {', '.join(missing)}; "
            f"install with `pip install {' '.join(ONNX_PACKAGES)}`"
        )
