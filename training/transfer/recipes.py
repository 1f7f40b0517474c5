"""The trainings that are tried beside heads on frozen features: the whole backbone, and a network from nothing."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig, build_network, default_image_size
from torchlight.training.config import (
    DEFAULT_ARCHITECTURE,
    TrainingConfig,
    default_batch_size,
    default_epochs,
    default_optimizer,
)
from torchlight.training.data.loading import LabelledImages, statistics
from torchlight.training.optimisation.initialisation import whiten_first_layer
from torchlight.training.optimisation.loop import best_precision
from torchlight.training.transfer.features import Backbone, attach_head
from torchlight.training.transfer.head_choice import title
from torchlight.training.transfer.trained_candidates import Recipe

FROM_NOTHING = f"from nothing: {DEFAULT_ARCHITECTURE}, {default_image_size(DEFAULT_ARCHITECTURE)} pixels"
FINE_TUNING_EPOCHS = 4
FINE_TUNING_RATE = 0.15  # for 512 images, so 0.005 for 16


def recipe_from_nothing(
    photos: LabelledImages, num_classes: int, flip: bool, device: torch.device, seed: int
) -> Recipe:
    """Return how the default network learns, as ``--from-scratch`` does.

    Args:
        photos: decoded at the network's own size.
        flip: whether a mirror image is of the same class.
    """
    size, number = default_image_size(DEFAULT_ARCHITECTURE), len(photos) * 4 // 5
    spec = ImageSpec(size, *statistics(photos.images))
    config = TrainingConfig(
        epochs=default_epochs(number),
        batch_size=default_batch_size(number),
        optimizer=default_optimizer(DEFAULT_ARCHITECTURE, False),
        whitening=True,
        shift=size // 8,
        cutout=size // 4,
        flip=flip,
        precision=best_precision(device),
        seed=seed,
    )

    def build(seen: Tensor) -> nn.Module:
        torch.manual_seed(seed)
        network = build_network(NetworkConfig(DEFAULT_ARCHITECTURE, num_classes))
        whiten_first_layer(network, photos.images[seen], spec)
        return network

    return Recipe(
        name=FROM_NOTHING,
        architecture=DEFAULT_ARCHITECTURE,
        spec=spec,
        photos=photos,
        config=config,
        build=build,
    )


def name_fine_tuned(backbone: Backbone) -> str:
    """Return what the report calls it."""
    return f"{title(backbone.architecture)}, fine-tuned"


def recipe_fine_tuned(
    photos: LabelledImages,
    backbone: Backbone,
    fit: Callable[[Tensor], tuple[Tensor, Tensor]],
    flip: bool,
    device: torch.device,
    seed: int,
) -> Recipe:
    """Return how the whole backbone learns on, from a fitted head and at small rates.

    Args:
        photos: decoded as the backbone wants them.
        fit: returns the weight (K, D) and bias (K,) of a head that learns from some photos, (N,) bool.
        flip: whether a mirror image is of the same class.
    """
    config = TrainingConfig(
        epochs=FINE_TUNING_EPOCHS,
        batch_size=min(16, max(2, len(photos) // 8)),
        learning_rate=FINE_TUNING_RATE,
        label_smoothing=0.0,  # the head starts from probabilities that fit
        shift=backbone.spec.size // 16,
        flip=flip,
        precision=best_precision(device),
        seed=seed,
    )
    return Recipe(
        name=name_fine_tuned(backbone),
        architecture=attach_head(backbone, *fit(torch.ones(len(photos), dtype=torch.bool)))[0],
        spec=backbone.spec,
        photos=photos,
        config=config,
        build=lambda seen: attach_head(backbone, *fit(seen))[1],
    )
