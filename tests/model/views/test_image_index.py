"""The index file: what is looked up in it, that it comes back as it was, and what is wrong with others."""

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from torchlight.model.errors import (
    ChannelOutOfRange,
    IndexFileError,
    IndexMismatch,
    IndexNotFound,
    IndexTruncated,
    InvalidIndex,
    ViewNotApplicable,
)
from torchlight.model.views import image_index
from torchlight.model.views.image_index import Index, LayerExamples, Neighbour, Peak, Source, digest_rows

DIGEST = "sha256:" + "ab" * 32
CLASS_NAMES = ("cat", "dög", "owl")
Change = Callable[[bytes], bytes]


def make_examples(channels: int, images: int, generator: torch.Generator) -> LayerExamples:
    """Return random values, at places that say which unit, row and column they are of."""
    columns = min(9, images)
    grid = torch.meshgrid(torch.arange(channels), torch.arange(3), torch.arange(columns), indexing="ij")
    return LayerExamples(
        values=torch.randn(channels, 3, columns, generator=generator),
        places=torch.stack([grid[2], grid[0], grid[1]], dim=3).int(),
        dead=torch.arange(channels) % 2 == 1,
    )


def make_index(images: int = 20, thumbnail_size: int = 8, embedding_size: int = 5) -> Index:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(images, embedding_size, generator=generator)
    return Index(
        checkpoint_digest=DIGEST,
        class_names=CLASS_NAMES,
        source=Source("photos", "sha256:1234", "train", 2 * images, True),
        thumbnails=torch.randint(
            256, (images, 3, thumbnail_size, thumbnail_size), generator=generator, dtype=torch.uint8
        ),
        embeddings=embeddings / embeddings.norm(dim=1, keepdim=True),
        labels=torch.arange(images, dtype=torch.int32) % 3,
        digests=digest_rows([f"{image:064x}" for image in range(images)]),
        layers={"conv1": make_examples(2, images, generator), "block.relu": make_examples(4, images, generator)},
    )


def tensors_of(one: Index) -> dict[str, Tensor]:
    """Return all tensors of an index by a name for each."""
    whole = {name: value for name, value in vars(one).items() if isinstance(value, Tensor)}
    return whole | {
        f"{name} {part}": value for name, examples in one.layers.items() for part, value in vars(examples).items()
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cats.index.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("index") / "good"
    image_index.save_index(path, make_index())
    return path.read_bytes()


def read_metadata(content: bytes) -> dict[str, str]:
    """Return the header's text fields, read by the published layout: 8 bytes of length, then JSON."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]


def with_text(**fields: str) -> Change:
    return lambda content: safetensors.torch.save(safetensors.torch.load(content), read_metadata(content) | fields)


def with_field(name: str, value: object) -> Change:
    return with_text(**{name: json.dumps(value)})


def with_tensors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Change:
    return lambda content: safetensors.torch.save(change(safetensors.torch.load(content)), read_metadata(content))


def test_index_lies_beside_its_checkpoint() -> None:
    assert image_index.index_path(Path("runs/cats.v2.safetensors")) == Path("runs/cats.v2.index.safetensors")


@pytest.mark.parametrize("images", [20, 9, 4])
def test_everything_comes_back_as_it_was_saved(images: int, path: Path) -> None:
    saved = make_index(images)
    image_index.save_index(path, saved)
    loaded = image_index.load_index(path, DIGEST)
    expected = tensors_of(saved)
    assert tensors_of(loaded).keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in tensors_of(loaded).items())
    assert all(value.dtype == expected[name].dtype for name, value in tensors_of(loaded).items())
    assert list(loaded.layers) == ["conv1", "block.relu"]
    assert (loaded.checkpoint_digest, loaded.class_names, loaded.source) == (DIGEST, CLASS_NAMES, saved.source)
    assert len(loaded) == images


def test_equal_input_gives_equal_bytes(good: bytes, path: Path) -> None:
    image_index.save_index(path, make_index())
    assert path.read_bytes() == good


def test_header_is_exactly_this_text(good: bytes) -> None:
    assert read_metadata(good) == {
        "format": "torchlight-index",
        "format_version": "1",
        "checkpoint": f'"{DIGEST}"',
        "class_names": '["cat", "dög", "owl"]',
        "source": '{"fingerprint": "sha256:1234", "is_training_data": true, "name": "photos", "split": "train", '
        '"split_images": 40}',
        "sizes": '{"embedding": 5, "images": 20, "thumbnail": 8}',
        "layers": '[["conv1", 2], ["block.relu", 4]]',
    }


def test_save_replaces_an_older_index_and_leaves_nothing_else(path: Path) -> None:
    path.write_bytes(b"the old one")
    image_index.save_index(path, make_index())
    assert len(image_index.load_index(path, DIGEST)) == 20
    assert list(path.parent.iterdir()) == [path]


def test_full_disk_is_an_os_error_and_leaves_the_older_index(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise SafetensorError("I/O error: No space left on device")

    path.write_bytes(b"the old one")
    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        image_index.save_index(path, make_index())
    assert path.read_bytes() == b"the old one"
    assert list(path.parent.iterdir()) == [path]


def test_file_that_the_disk_does_not_give_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    image_index.save_index(path, make_index())
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(IndexFileError) as caught:
        image_index.load_index(path, DIGEST)
    assert str(caught.value) == f"index {path} cannot be read (Permission denied)"


def own_memory_bytes() -> int:
    """Return how much memory this process has that is not a copy of some file."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_index_stays_in_its_file(path: Path) -> None:
    image_index.save_index(path, make_index(images=4000, thumbnail_size=64))  # 49 MB of thumbnails
    before = own_memory_bytes()
    loaded = image_index.load_index(path, DIGEST)
    assert loaded.thumbnails.max() == 255
    assert own_memory_bytes() - before < 10_000_000


def test_top_images_are_the_rows_of_the_unit() -> None:
    made = make_index()
    examples = made.top_images("block.relu", 3)
    for row, peaks in enumerate((examples.best, examples.random, examples.lowest)):
        values = made.layers["block.relu"].values[3, row].tolist()
        labels = [CLASS_NAMES[image % 3] for image in range(9)]
        assert peaks == tuple(Peak(image, labels[image], 3, row, values[image]) for image in range(9))


def test_fewer_images_than_nine_make_shorter_rows() -> None:
    examples = make_index(images=4).top_images("conv1", 0)
    assert [len(row) for row in (examples.best, examples.random, examples.lowest)] == [4, 4, 4]


def test_dead_channels_are_listed() -> None:
    made = make_index()
    assert made.dead_channels("block.relu") == [1, 3]
    assert [made.is_dead("block.relu", channel) for channel in range(4)] == [False, True, False, True]


def test_layer_that_is_not_indexed_is_refused_with_those_that_are() -> None:
    with pytest.raises(ViewNotApplicable, match=r"'fc' is not indexed; the index has conv1, block\.relu"):
        make_index().top_images("fc", 0)


@pytest.mark.parametrize("channel", [2, -1])
def test_channel_out_of_range_is_refused(channel: int) -> None:
    with pytest.raises(ChannelOutOfRange, match=f"channel {channel} does not exist: layer 'conv1' has channels 0 to 1"):
        make_index().is_dead("conv1", channel)


@pytest.mark.parametrize("k", [1, 5, 200, 1000])
def test_neighbours_equal_a_search_by_hand(k: int) -> None:
    made = make_index(images=200, embedding_size=16)
    query = torch.nn.functional.normalize(torch.randn(16, generator=torch.Generator().manual_seed(1)), dim=0)
    cosines = [sum(a * b for a, b in zip(row, query.tolist(), strict=True)) for row in made.embeddings.tolist()]
    order = sorted(range(200), key=lambda image: -cosines[image])[:k]
    found = made.neighbours(query, k)
    assert [one.image for one in found] == order
    assert [one.label for one in found] == [CLASS_NAMES[image % 3] for image in order]
    assert [one.similarity for one in found] == pytest.approx([cosines[image] for image in order], abs=1e-6)


def test_an_indexed_image_finds_itself_with_similarity_one() -> None:
    made = make_index(images=200, embedding_size=256)
    for image in range(200):
        (found,) = made.neighbours(made.embeddings[image], 1)
        assert found == Neighbour(image, CLASS_NAMES[image % 3], "train", pytest.approx(1, abs=1e-6))


def test_the_same_image_is_excluded_and_so_are_its_copies() -> None:
    made = make_index()
    copies = dataclasses.replace(made, digests=digest_rows([f"{image // 2:064x}" for image in range(20)]))
    everything = made.neighbours(made.embeddings[7], 20)
    found = copies.neighbours(made.embeddings[7], 20, exclude_digest=f"{3:064x}")
    assert found == [one for one in everything if one.image not in (6, 7)]
    assert len(found) == 18


def test_digest_of_another_image_excludes_nothing() -> None:
    made = make_index()
    query = made.embeddings[7]
    assert made.neighbours(query, 20, exclude_digest="f" * 64) == made.neighbours(query, 20)


def test_equally_similar_images_come_in_the_order_of_their_numbers() -> None:
    made = make_index()
    alike = dataclasses.replace(made, embeddings=made.embeddings[:1].expand(20, -1))
    assert [one.image for one in alike.neighbours(made.embeddings[0], 5)] == [0, 1, 2, 3, 4]


def test_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFound, match=re.escape(str(tmp_path / "nowhere"))):
        image_index.load_index(tmp_path / "nowhere", DIGEST)


def test_index_of_another_checkpoint_is_refused_with_both_digests(good: bytes, path: Path) -> None:
    path.write_bytes(good)
    with pytest.raises(IndexMismatch) as caught:
        image_index.load_index(path, "sha256:" + "cd" * 32)
    assert all(text in str(caught.value) for text in (str(path), DIGEST, "sha256:cdcd", "torchlight index"))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        pytest.param(lambda good: b"", IndexTruncated, "0 bytes", id="empty"),
        pytest.param(lambda good: good[:5], IndexTruncated, "5 bytes", id="five bytes"),
        pytest.param(lambda good: good[:200], IndexTruncated, "200 bytes", id="cut in the header"),
        pytest.param(lambda good: good[:-1], IndexTruncated, "copy it again", id="last byte missing"),
        pytest.param(lambda good: good + b"\n", InvalidIndex, "not a valid", id="longer than it says"),
        pytest.param(lambda good: b"\x89PNG\r\n\x1a\n" + bytes(99), InvalidIndex, "not a .safetensors", id="PNG"),
        pytest.param(lambda good: b"\x80\x02}q\x00." + bytes(99), InvalidIndex, "pickled", id="pickle"),
        pytest.param(with_text(format="torchlight"), InvalidIndex, "`torchlight index`", id="a checkpoint"),
        pytest.param(with_text(format_version="2"), InvalidIndex, "version 2", id="future version"),
        pytest.param(with_text(layers="[conv1"), InvalidIndex, "'layers' is not JSON", id="not JSON"),
        pytest.param(with_field("class_names", 3), InvalidIndex, "does not hold", id="class names are a number"),
        pytest.param(with_field("source", {"name": "photos"}), InvalidIndex, "fingerprint", id="source lacks members"),
        pytest.param(with_field("source", []), InvalidIndex, "does not hold", id="source is a list"),
        pytest.param(with_field("sizes", {}), InvalidIndex, "images", id="no sizes"),
        pytest.param(with_field("layers", 5), InvalidIndex, "does not hold", id="layers are a number"),
        pytest.param(with_field("layers", [["conv1"]]), InvalidIndex, "does not hold", id="layer without channels"),
        pytest.param(
            with_field("layers", [["conv1", 2]]), InvalidIndex, "'dead/block.relu' is BOOL 4", id="unannounced layer"
        ),
        pytest.param(
            with_field("sizes", {"images": 20, "thumbnail": 9, "embedding": 5}),
            InvalidIndex,
            "'thumbnails' is U8 20x3x8x8, its header announces U8 20x3x9x9",
            id="other sizes",
        ),
        pytest.param(
            with_tensors(lambda tensors: {k: v for k, v in tensors.items() if k != "labels"}),
            InvalidIndex,
            "'labels' is absent",
            id="missing tensor",
        ),
        pytest.param(
            with_tensors(lambda tensors: tensors | {"labels": tensors["labels"].long()}),
            InvalidIndex,
            "'labels' is I64 20",
            id="wrong type",
        ),
    ],
)  # fmt: skip
def test_wrong_file_is_refused_with_what_is_wrong(
    change: Change, error: type[IndexFileError], words: str, good: bytes, path: Path
) -> None:
    path.write_bytes(change(good))
    with pytest.raises(IndexFileError) as caught:
        image_index.load_index(path, DIGEST)
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_of_the_header_raise_only_index_errors(seed: int, good: bytes, path: Path) -> None:
    random = np.random.default_rng(seed)
    end = 8 + int.from_bytes(good[:8], "little")
    for _ in range(150):
        damaged = bytearray(good)
        for place in random.integers(0, end, random.integers(1, 4)):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        with suppress(IndexFileError):
            image_index.load_index(path, DIGEST)
