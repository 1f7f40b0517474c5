"""The architectures. A network maps normalised images (N, 3, S, S) to logits (N, K); softmax is not part of it.

Each of our own networks is one straight chain, so that a layer's dotted path reads like the guide's story:
``conv1``, ``relu1``, ``pool1``, ..., ``fc``.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from torchlight.model.efficientnet_lite import (
    EFFICIENTNET_LITES,
    MULTILEVEL,
    SIZES,
    build_efficientnet_lite,
    feature_sizes,
)
from torchlight.model.errors import NetworkError, UnknownArchitecture, WeightsDamaged
from torchlight.model.images import ImageSpec
from torchlight.model.published_weights import describe_weights, read_weights

# Mean and standard deviation that torchvision's published weights were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Those of EfficientNet-Lite: (pixel - 127) / 128 for pixels of 0 to 255.
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True)
class NetworkConfig:
    """Which network to build; travels in the checkpoint.

    Attributes:
        architecture: ``torchlight``, ``guide``, ``lenet5``, a name in ``EFFICIENTNET_LITES`` or that of a torchvision
            classification model.
        num_classes: K, at least 2.
    """

    architecture: str
    num_classes: int


def build_network(config: NetworkConfig) -> nn.Module:
    """Return the network with freshly initialised weights (from torch's global generator), in training mode.

    Raises:
        UnknownArchitecture: no network has that name.
    """
    if config.architecture in OWN_ARCHITECTURES:
        return OWN_ARCHITECTURES[config.architecture](config.num_classes)
    if config.architecture in EFFICIENTNET_LITES:
        return build_efficientnet_lite(config.architecture, config.num_classes)
    _require_torchvision(config.architecture)
    # without their second classifier, which only training uses; torchvision warns unless init_weights is given
    has_two_heads = config.architecture in ("googlenet", "inception_v3")
    options = {"aux_logits": False, "init_weights": True} if has_two_heads else {}
    network: nn.Module = _torchvision_models().get_model(config.architecture, num_classes=config.num_classes, **options)
    return network


def read_pretrained(architecture: str) -> Mapping[str, Tensor]:
    """Return published weights by name.

    Those of EfficientNet-Lite come with the installation; torchvision's are fetched over the network the first time.
    Either file is read once its hash is right, with torch's weights-only reader, which runs no code from it.

    Raises:
        UnknownArchitecture: no network has that name.
        NetworkError: it has no published weights, or they cannot be fetched.
        WeightsNotInstalled: their package is missing.
        WeightsDamaged: the file is another one.
    """
    if architecture in OWN_ARCHITECTURES:
        raise NetworkError(f"architecture {architecture!r} has no published weights; train it without --pretrained")
    if architecture in EFFICIENTNET_LITES:
        return read_weights(architecture.removesuffix(MULTILEVEL))
    published: Mapping[str, Tensor] = torch.load(_fetch_weights(architecture), map_location="cpu", weights_only=True)
    return published


def load_pretrained(network: nn.Module, architecture: str) -> None:
    """Copy published weights into ``network``, all but a classifier head of another size.

    Raises:
        UnknownArchitecture, NetworkError: see :func:`read_pretrained`.
    """
    published = read_pretrained(architecture)
    own = network.state_dict()
    others = {_layer_of(name) for name, value in published.items() if name not in own or own[name].shape != value.shape}
    fitting = {name: value for name, value in published.items() if _layer_of(name) not in others}
    network.load_state_dict(fitting, strict=False)


def published_image_spec(architecture: str, image_size: int) -> ImageSpec:
    """Return how images become input of a network with published weights."""
    if architecture in EFFICIENTNET_LITES:
        return ImageSpec(image_size, LITE_MEAN, LITE_STD, "centre_crop_bicubic_antialias")
    return ImageSpec(image_size, IMAGENET_MEAN, IMAGENET_STD)


def describe_backbone(architecture: str) -> dict[str, str]:
    """Return what a checkpoint that was trained from published weights says of them: name, source and licence."""
    if architecture in EFFICIENTNET_LITES:
        return describe_weights(architecture.removesuffix(MULTILEVEL))
    weights = _torchvision_models().get_model_weights(architecture).DEFAULT
    return {"name": architecture, "source": f"torchvision: {weights.url}", "licence": "see the source"}


def default_image_size(architecture: str) -> int:
    """Return the side S in pixels of the square input the network was designed for: 32 for our own."""
    if architecture in OWN_ARCHITECTURES:
        return 32
    if architecture in EFFICIENTNET_LITES:
        return SIZES[architecture.removesuffix(MULTILEVEL)].image_size
    _require_torchvision(architecture)
    size: int = _torchvision_models().get_model_weights(architecture).DEFAULT.transforms().crop_size[0]
    return size


def architecture_names() -> list[str]:
    """Return the names that :func:`build_network` takes: our own, then torchvision's."""
    return [*OWN_ARCHITECTURES, *EFFICIENTNET_LITES, *_torchvision_architectures()]


def check_image_size(architecture: str, image_size: int) -> None:
    """Check that a network takes S x S images, without memory for its weights.

    Raises:
        UnknownArchitecture: no network has that name.
        NetworkError: it does not take them.
    """
    with torch.device("meta"):
        network = build_network(NetworkConfig(architecture, 2)).eval()
        try:
            network(torch.zeros(1, 3, image_size, image_size))
        except (RuntimeError, AssertionError) as error:  # raised by layers and by torchvision's own checks
            reason = str(error).splitlines()[0].rstrip(".")
            raise NetworkError(
                f"architecture {architecture!r} does not take images of {image_size}x{image_size} pixels ({reason}); "
                f"leave --image-size out for {default_image_size(architecture)}"
            ) from error


def first_convolution(network: nn.Module) -> nn.Conv2d | None:
    """Return the convolution that reads the image; None if the network has no convolution."""
    return next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)


def classifier_head(network: nn.Module) -> nn.Linear | nn.Conv2d:
    """Return the last layer with weights, which gives the logits: fully connected, or a 1x1 convolution."""
    return [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]


def embedding_size(network: nn.Module, architecture: str) -> int:
    """Return how many numbers a network sums up an image to: those that its head reads, of several depths the last.

    See :func:`model.views.embedding.embedding_layer`.
    """
    if architecture in EFFICIENTNET_LITES and architecture.endswith(MULTILEVEL):
        return feature_sizes(architecture)["last"]
    return classifier_head(network).weight.shape[1]


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable numbers."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_multiply_adds(network: nn.Module, image_size: int) -> int:
    """Return the multiply-adds of convolutions and fully connected layers for one image.

    Runs one forward pass in evaluation mode on zeros; the network's mode is restored.
    """
    counts: list[int] = []

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        counts.append(output.numel() * layer.weight[0].numel())  # one product for each weight of an output channel

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    was_training = network.training
    device = next(network.parameters()).device
    try:
        network.eval()
        with torch.inference_mode():
            network(torch.zeros(1, 3, image_size, image_size, device=device))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return sum(counts)


def _torchlight(num_classes: int) -> nn.Module:
    """Return the default network: 1.7 M parameters, 0.12 G multiply-adds on 32x32 images.

    The first convolution is the guide's: 5x5x3 filters, stride 1, no padding, 28x28 activation maps. The last maps
    keep 7x7 positions, so that attributions can locate a class; their mean and one linear layer follow.
    """
    widths = {1: 64, 2: 128, 3: 128, 4: 256, 5: 256, 6: 256}
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    in_channels = 3
    for index, out_channels in widths.items():
        kernel_size, padding = (5, 0) if index == 1 else (3, 1)
        convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=index == 1)
        layers[f"conv{index}"] = convolution
        layers[f"bn{index}"] = nn.BatchNorm2d(out_channels)
        layers[f"relu{index}"] = nn.ReLU()
        if index in (1, 3):
            layers[f"pool{index}"] = nn.MaxPool2d(2)  # 28 -> 14 -> 7
        if index > 1:  # start as a partial identity, so that depth costs nothing early in training
            nn.init.dirac_(convolution.weight.data[:in_channels])
        in_channels = out_channels
    layers["global_pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(in_channels, num_classes)
    return nn.Sequential(layers)


def _guide(num_classes: int) -> nn.Module:
    """Return the beginner's guide's chain: conv ReLU conv ReLU pool ReLU conv ReLU pool, fully connected."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(3, 32, kernel_size=5),  # 32 -> 28
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 32, kernel_size=5),  # 28 -> 24
            relu2=nn.ReLU(),
            pool1=nn.MaxPool2d(2),  # 24 -> 12
            relu3=nn.ReLU(),
            conv3=nn.Conv2d(32, 64, kernel_size=5),  # 12 -> 8
            relu4=nn.ReLU(),
            pool2=nn.MaxPool2d(2),  # 8 -> 4
            flatten=nn.Flatten(),
            fc=nn.Linear(64 * 4 * 4, num_classes),
        )
    )


def _lenet5(num_classes: int) -> nn.Module:
    """Return LeNet-5 for colour images, with plain average pooling and tanh.

    Source: LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, 1998. Its partial
    connections between S2 and C3, trained pooling weights and radial-basis output are left out, as is usual today.
    """
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(3, 6, kernel_size=5),  # 32 -> 28
            tanh1=nn.Tanh(),
            pool1=nn.AvgPool2d(2),  # 28 -> 14
            conv2=nn.Conv2d(6, 16, kernel_size=5),  # 14 -> 10
            tanh2=nn.Tanh(),
            pool2=nn.AvgPool2d(2),  # 10 -> 5
            conv3=nn.Conv2d(16, 120, kernel_size=5),  # 5 -> 1
            tanh3=nn.Tanh(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(120, 84),
            tanh4=nn.Tanh(),
            fc2=nn.Linear(84, num_classes),
        )
    )


OWN_ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "torchlight": _torchlight,
    "guide": _guide,
    "lenet5": _lenet5,
}


def _layer_of(tensor_name: str) -> str:
    """Return the path of the layer: a head takes weights and bias, or neither."""
    return tensor_name.rpartition(".")[0]


def _fetch_weights(architecture: str) -> Path:
    """Return torchvision's file of weights in torch hub's folder, its hash checked; fetches it if it is not there."""
    _require_torchvision(architecture)
    url = _torchvision_models().get_model_weights(architecture).DEFAULT.url
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    expected = file.stem.rpartition("-")[2]  # resnet18-f37072fd: the first digits of its SHA-256
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), expected)
        except (OSError, RuntimeError) as error:  # no way there, no room here; another hash
            raise NetworkError(
                f"weights of {architecture} cannot be fetched from {url} ({error}); "
                f"save them as {file} yourself, or train without --pretrained"
            ) from error
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if not found.startswith(expected):
        raise WeightsDamaged(
            f"weights of {architecture}: {file} has the SHA-256 {found[:12]}..., not {expected}...; "
            f"remove it, so that {url} is fetched again"
        )
    return file


def _torchvision_models() -> ModuleType:
    """Return torchvision's models. Their import takes twice as long as torch's, so our own networks avoid it."""
    from torchvision import models

    return models  # type: ignore[no-any-return]


def _torchvision_architectures() -> list[str]:
    models = _torchvision_models()
    names: list[str] = models.list_models(module=models)
    return names


def _require_torchvision(architecture: str) -> None:
    if architecture not in _torchvision_architectures():
        raise UnknownArchitecture(
            f"architecture {architecture!r} is unknown; take {', '.join((*OWN_ARCHITECTURES, *SIZES))} "
            "or a torchvision classification model such as resnet18 or mobilenet_v3_small"
        )
