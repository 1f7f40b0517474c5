"""The pass that makes an index: what it finds is what a full sort finds, on every network, however it is cut up."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from torchlight.model.checkpoint import Header, load_checkpoint, save_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.errors import DataError, IndexFileError
from torchlight.model.graph import NetworkGraph
from torchlight.model.images import ImageSpec, Resizing
from torchlight.model.network import NetworkConfig, build_network
from torchlight.model.views import image_index
from torchlight.model.views.activations import activation_maps
from torchlight.model.views.embedding import embed, image_digest, layer_outputs
from torchlight.model.views.image_index import Index, Peak, Source, digest_rows
from torchlight.training import index_images
from torchlight.training.data import loading
from torchlight.training.data.loading import LabelledImages

SOURCE = Source("photos", "sha256:1234", "train", 40, True)
CLASS_NAMES = ("cat", "dog", "owl")
MakeClassifier = Callable[..., Classifier]


def nothing(_network: nn.Module) -> None:
    """Leave a network as it is."""


@pytest.fixture
def make_classifier(tmp_path: Path) -> MakeClassifier:
    """Return a function that takes a network with random weights, and a change to it, through its file."""

    def make(
        architecture: str = "guide",
        size: int = 32,
        change: Callable[[nn.Module], None] = nothing,
        **header: object,
    ) -> Classifier:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            network = build_network(NetworkConfig(architecture, 3))
            change(network)
        spec = ImageSpec(size, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
        fields = {"metrics": {}, "training": {}, "data": {}, "versions": {}} | header
        path = tmp_path / f"{architecture}.safetensors"
        save_checkpoint(path, network, Header(NetworkConfig(architecture, 3), CLASS_NAMES, spec, **fields))
        return Classifier(load_checkpoint(path), torch.device("cpu"))

    return make


def noise(number: int, size: int = 32) -> LabelledImages:
    """Return images of noise in the order of their classes, as folders give them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (number, 3, size, size), generator=generator, dtype=torch.uint8)
    return LabelledImages(images, torch.arange(number) * 3 // number)


def find_all_peaks(made: Index, maps: Tensor) -> list[Peak]:
    """Return the peak of a unit on every image of an index, by the image's number, from its maps (N, H, W)."""
    peaks = []
    for image, values in enumerate(maps.numpy()):
        y, x = np.unravel_index(values.argmax(), values.shape)
        peaks.append(Peak(image, CLASS_NAMES[made.labels[image]], int(y), int(x), float(values[y, x])))
    return peaks


@pytest.mark.parametrize(
    ("architecture", "size", "layers"),
    [
        ("torchlight", 32, ["conv1", "relu3", "conv6"]),
        ("guide", 32, ["relu1", "relu3", "conv3"]),
        ("resnet18", 64, ["conv1", "layer2.0.relu", "layer4.1.relu_1"]),
    ],
)
def test_rows_are_those_of_a_full_sort_and_their_values_those_of_the_stored_images(
    architecture: str, size: int, layers: list[str], make_classifier: MakeClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_images, "MAX_BATCH_SIZE", 16)
    classifier = make_classifier(architecture, size)
    made = index_images.index_images(classifier, noise(40, size), SOURCE)
    outputs = [layer_outputs(classifier, batch, layers) for batch in torch.split(made.thumbnails, 16)]
    for layer in layers:
        maps = torch.cat([output[layer] for output in outputs])
        for channel in (0, 7, 31):
            peaks = find_all_peaks(made, maps[:, channel])
            examples = made.top_images(layer, channel)
            assert examples.best == tuple(sorted(peaks, key=lambda peak: -peak.value)[:9])
            assert examples.lowest == tuple(sorted(peaks, key=lambda peak: peak.value)[:9])
            assert examples.random == tuple(peaks[-9:])
            for peak in (examples.best[0], examples.best[8]):
                alone = activation_maps(classifier, made.thumbnails[peak.image], layer)
                assert alone[channel, peak.y, peak.x].item() == pytest.approx(peak.value, rel=1e-5, abs=1e-5)


def test_images_that_a_unit_cannot_tell_apart_come_in_the_order_of_their_numbers(
    make_classifier: MakeClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_images, "MAX_BATCH_SIZE", 10)
    alike = LabelledImages(noise(1).images.expand(30, -1, -1, -1), torch.zeros(30, dtype=torch.int64))
    examples = index_images.index_images(make_classifier(), alike, SOURCE).top_images("relu1", 0)
    assert [peak.image for peak in examples.best] == list(range(9))
    assert [peak.image for peak in examples.lowest] == list(range(9))
    assert [peak.image for peak in examples.random] == list(range(21, 30))


def test_a_maximum_at_several_positions_is_placed_at_the_first_in_reading_order(
    make_classifier: MakeClassifier,
) -> None:
    def ignore_the_image(network: nn.Module) -> None:
        network.get_submodule("conv1").weight.zero_()

    made = index_images.index_images(make_classifier(change=ignore_the_image), noise(3), SOURCE)
    assert {(peak.y, peak.x) for peak in made.top_images("conv1", 0).best} == {(0, 0)}


@pytest.mark.parametrize("architecture", ["torchlight", "guide", "resnet18"])
def test_every_convolution_and_activation_with_maps_is_indexed(
    architecture: str, make_classifier: MakeClassifier
) -> None:
    classifier = make_classifier(architecture, 64 if architecture == "resnet18" else 32)
    made = index_images.index_images(classifier, noise(2, classifier.spec.size), SOURCE)
    layers = [layer for layer in classifier.graph.layers.values() if layer.type in ("Conv2d", "ReLU")]
    assert list(made.layers) == [layer.name for layer in layers]
    assert [len(examples.dead) for examples in made.layers.values()] == [layer.out_shape[0] for layer in layers]


def test_activation_functions_of_maps_that_are_channels_last_are_indexed_by_channel() -> None:
    with torch.device("meta"):
        convnext = build_network(NetworkConfig("convnext_tiny", 3))
    indexed = index_images.indexed_layers(NetworkGraph(convnext, 64))
    assert {layer.type for layer in indexed} == {"Conv2d", "GELU"}
    assert {layer.name: layer.out_shape for layer in indexed}["features.1.0.block.4"] == (384, 16, 16)


def test_maps_of_one_position_are_left_out() -> None:
    with torch.random.fork_rng():
        squeezing = build_network(NetworkConfig("mobilenet_v3_small", 3))
    names = {layer.name for layer in index_images.indexed_layers(NetworkGraph(squeezing.eval(), 64))}
    assert "features.1.block.0.2" in names  # a ReLU on maps
    assert "features.1.block.1.activation" not in names  # one on the block's mean


def test_unit_without_weights_is_dead_and_its_neighbour_is_not(make_classifier: MakeClassifier) -> None:
    def silence(network: nn.Module) -> None:
        network.get_submodule("conv2").weight[5] = 0
        network.get_submodule("bn2").bias[5] = 0

    made = index_images.index_images(make_classifier("torchlight", change=silence), noise(12), SOURCE)
    assert made.dead_channels("relu2") == [5]
    assert made.is_dead("relu2", 5)
    assert not made.is_dead("relu2", 6)
    assert [peak.value for peak in made.top_images("relu2", 5).best] == [0] * 9


def test_unit_that_is_always_negative_is_dead_only_after_its_activation(make_classifier: MakeClassifier) -> None:
    def push_down(network: nn.Module) -> None:
        network.get_submodule("conv1").bias[3] = -100

    made = index_images.index_images(make_classifier(change=push_down), noise(12), SOURCE)
    assert made.dead_channels("conv1") == []
    assert made.dead_channels("relu1") == [3]


def test_unit_whose_largest_value_is_zero_but_whose_map_is_not_lives(make_classifier: MakeClassifier) -> None:
    def give_minus_the_red_of_black_framed_images(network: nn.Module) -> None:
        first = network.get_submodule("conv1")
        first.weight[0] = 0
        first.weight[0, 0, 2, 2] = -0.3  # of (red - 0.5) / 0.25, which is -2 where black
        first.bias[0] = -0.6

    framed = noise(3)
    framed.images[:, :, :4] = 0
    made = index_images.index_images(make_classifier(change=give_minus_the_red_of_black_framed_images), framed, SOURCE)
    assert made.top_images("conv1", 0).best[0].value == pytest.approx(0, abs=1e-6)
    assert not made.is_dead("conv1", 0)


def test_each_image_keeps_its_label_digest_and_embedding(make_classifier: MakeClassifier) -> None:
    classifier, images = make_classifier(), noise(30)
    made = index_images.index_images(classifier, images, SOURCE)
    numbers = {image_digest(image): number for number, image in enumerate(images.images)}
    order = [numbers[image_digest(image)] for image in made.thumbnails]
    assert sorted(order) == list(range(30))
    assert made.labels.tolist() == images.labels[order].tolist()
    assert torch.equal(made.digests, digest_rows([image_digest(image) for image in images.images[order]]))
    torch.testing.assert_close(made.embeddings, embed(classifier, images.images[order]), rtol=0, atol=1e-6)


def test_an_uploaded_training_image_finds_itself_and_can_be_excluded(make_classifier: MakeClassifier) -> None:
    classifier, images = make_classifier("torchlight"), noise(30)
    made = index_images.index_images(classifier, images, SOURCE)
    upload = images.images[17]
    embedding = embed(classifier, upload[None])[0]
    first, second = made.neighbours(embedding, 2)
    assert torch.equal(made.thumbnails[first.image], upload)
    assert first.similarity == pytest.approx(1, abs=1e-6)
    assert made.neighbours(embedding, 1, exclude_digest=image_digest(upload)) == [second]


def test_size_of_the_batches_changes_only_the_last_digits(
    make_classifier: MakeClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, images = make_classifier(), noise(20)
    done: list[tuple[int, int]] = []
    at_once = index_images.index_images(classifier, images, SOURCE, on_batch=lambda *progress: done.append(progress))
    monkeypatch.setattr(index_images, "BATCH_BYTES", 1)
    one_by_one = index_images.index_images(classifier, images, SOURCE, on_batch=lambda *progress: done.append(progress))
    assert done == [(20, 20), *((number, 20) for number in range(1, 21))]
    torch.testing.assert_close(one_by_one.embeddings, at_once.embeddings, rtol=0, atol=1e-6)
    for name, examples in at_once.layers.items():
        torch.testing.assert_close(one_by_one.layers[name].values, examples.values, rtol=1e-4, atol=1e-5)
        assert torch.equal(one_by_one.layers[name].dead, examples.dead)


def test_limit_takes_a_random_part_of_all_classes(make_classifier: MakeClassifier) -> None:
    made = index_images.index_images(make_classifier(), noise(90), SOURCE, limit=30)
    assert len(made) == 30
    assert torch.bincount(made.labels).min() >= 5


def test_small_images_are_kept_as_they_are_and_large_ones_reduced() -> None:
    small, large = noise(2, 64).images, torch.full((2, 3, 200, 200), 7, dtype=torch.uint8)
    large[:, :, :, 100:] = 250
    reduced = index_images.thumbnails(large)
    assert torch.equal(index_images.thumbnails(small), small)
    assert (reduced.shape, reduced.dtype) == ((2, 3, 64, 64), torch.uint8)
    assert set(reduced[:, :, :, :30].unique().tolist()) == {7}
    assert set(reduced[:, :, :, 34:].unique().tolist()) == {250}


def test_network_that_gives_no_numbers_is_refused(make_classifier: MakeClassifier) -> None:
    def break_it(network: nn.Module) -> None:
        network.get_submodule("conv2").bias[0] = torch.nan

    with pytest.raises(IndexFileError, match="'conv2' gives values that are not finite"):
        index_images.index_images(make_classifier(change=break_it), noise(3), SOURCE)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of ten drawn pictures for each of three classes."""
    random = np.random.default_rng(0)
    for name in CLASS_NAMES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def test_same_source_twice_gives_equal_bytes(photos: Path, make_classifier: MakeClassifier, tmp_path: Path) -> None:
    classifier = make_classifier()
    for name in "ab":
        image_index.save_index(tmp_path / name, index_images.build_index(classifier, str(photos)))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_index_of_a_source_answers_the_same_from_its_file(
    photos: Path, make_classifier: MakeClassifier, tmp_path: Path
) -> None:
    classifier = make_classifier("torchlight")
    made = index_images.build_index(classifier, str(photos))
    image_index.save_index(tmp_path / "file", made)
    loaded = image_index.load_index(tmp_path / "file", classifier.digest)
    assert loaded.top_images("relu4", 9) == made.top_images("relu4", 9)
    assert loaded.neighbours(made.embeddings[3], 5) == made.neighbours(made.embeddings[3], 5)


@pytest.mark.parametrize(("split", "images"), [("train", 21), ("val", 3), ("test", 6)])
def test_training_data_is_divided_as_it_was_in_training(
    split: str, images: int, photos: Path, make_classifier: MakeClassifier
) -> None:
    fractions = {"val_fraction": 0.1, "test_fraction": 0.2}
    dataset = loading.load_dataset(str(photos), Resizing(32), **fractions, seed=7)
    classifier = make_classifier(data={"fingerprint": dataset.fingerprint, **fractions}, training={"seed": 7})
    made = index_images.build_index(classifier, str(photos), split)
    assert made.source == Source("photos", dataset.fingerprint, split, images, True)
    expected = {image_digest(image) for image in dataset.splits[split].images}
    assert {image_digest(image) for image in made.thumbnails} == expected


def test_of_a_source_it_was_not_trained_on_all_images_are_indexed(
    photos: Path, make_classifier: MakeClassifier
) -> None:
    classifier = make_classifier(data={"fingerprint": "sha256:1234", "val_fraction": 0.1, "test_fraction": 0.2})
    made = index_images.build_index(classifier, str(photos))
    assert (len(made), made.source.split, made.source.is_training_data) == (30, "train", False)


@pytest.mark.parametrize("split", ["val", "holdout"])
def test_split_without_images_is_refused_with_those_there_are(
    split: str, photos: Path, make_classifier: MakeClassifier
) -> None:
    with pytest.raises(DataError, match=rf"no images in split '{split}'; it has 30 train, 0 val, 0 test"):
        index_images.build_index(make_classifier(), str(photos), split)


def test_unreadable_files_are_refused_or_skipped(photos: Path, make_classifier: MakeClassifier) -> None:
    (photos / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"broken\.png"):
        index_images.build_index(make_classifier(), str(photos))
    assert len(index_images.build_index(make_classifier(), str(photos), skip_unreadable=True)) == 30


def test_data_trained_on_without_its_unreadable_files_is_indexed_without_them(
    photos: Path, make_classifier: MakeClassifier
) -> None:
    (photos / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    dataset = loading.load_dataset(str(photos), Resizing(32), skip_unreadable=True)
    facts = {"fingerprint": dataset.fingerprint, "skipped": 1, "val_fraction": 0.1, "test_fraction": 0.1}
    made = index_images.build_index(make_classifier(data=facts, training={"seed": 0}), str(photos))
    assert made.source == Source("photos", dataset.fingerprint, "train", 24, True)


def test_indexing_leaves_the_answers_of_the_network_as_they_were(make_classifier: MakeClassifier) -> None:
    classifier, images = make_classifier("torchlight"), noise(12)
    before = classifier.logits(images.images)
    state: dict[str, Tensor] = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    index_images.index_images(classifier, images, dataclasses.replace(SOURCE, split_images=12))
    assert torch.equal(classifier.logits(images.images), before)
    assert all(torch.equal(value, state[name]) for name, value in classifier.network.state_dict().items())
