"""What views are computed from: stored images, what the network makes of them, and the index. Knows nothing of HTTP.

Layer outputs and decoded images are kept for a while: a client that asks for one layer of an image asks for the next.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property

import torch
from torch import Tensor

from torchlight.app.errors import NoIndex, NoMistakes
from torchlight.app.inference.service import PreparedImage, Service
from torchlight.app.inspection.byte_cache import ByteCache
from torchlight.app.inspection.image_store import ImageStore
from torchlight.model.errors import (
    ChannelOutOfRange,
    IndexFileError,
    IndexNotFound,
    MistakesFileError,
    MistakesNotFound,
)
from torchlight.model.views import image_index, kept_mistakes
from torchlight.model.views.activations import MapStage, activation_maps, layer_at_stage
from torchlight.model.views.embedding import embedding_layer, layer_outputs, to_embeddings
from torchlight.model.views.image_index import Index
from torchlight.model.views.kept_mistakes import KeptMistakes

ENTRY_BYTES = 500  # what keeping anything costs beside the thing itself
SWEEPS_PER_LIFETIME = 24  # images of a day are removed within the hour
logger = logging.getLogger("torchlight")


class Inspector:
    """The state of inspection: apart from the service's, which answers without it."""

    def __init__(self, service: Service) -> None:
        """Open the store, the index and the mistakes.

        Raises:
            StoreUnavailable: the folder for uploads cannot be used.
        """
        settings = service.settings
        self.service = service
        self.classifier = service.classifier
        self.store = ImageStore(
            settings.store_folder, max_bytes=settings.store_max_bytes, max_age_s=settings.store_max_age_s
        )
        self.cache = ByteCache(settings.view_cache_bytes)
        self._index = _load_index(service)
        self._mistakes = _load_mistakes(service)

    @cached_property
    def index_version(self) -> str:
        """Identifies the index among those of one checkpoint."""
        digest = hashlib.sha256(json.dumps(asdict(self.index.source)).encode())
        for part in (self.index.digests, self.index.labels):
            digest.update(part.numpy().tobytes())
        return digest.hexdigest()

    @property
    def has_index(self) -> bool:
        """Whether there is an index that fits."""
        return isinstance(self._index, Index)

    @property
    def index(self) -> Index:
        """The index beside the checkpoint.

        Raises:
            NoIndex: there is none that fits.
        """
        if isinstance(self._index, Index):
            return self._index
        raise NoIndex(f"{self._index}; make one with `torchlight index CHECKPOINT SOURCE` and restart the service")

    @property
    def has_mistakes(self) -> bool:
        """Whether there are photos that were answered wrongly."""
        return isinstance(self._mistakes, KeptMistakes)

    @property
    def mistakes(self) -> KeptMistakes:
        """The photos that were answered wrongly, beside the checkpoint.

        Raises:
            NoMistakes: there are none that fit.
        """
        if isinstance(self._mistakes, KeptMistakes):
            return self._mistakes
        raise NoMistakes(
            f"{self._mistakes}; train with `torchlight train SOURCE --keep-mistakes` and restart the service"
        )

    async def keep_sweeping(self) -> None:
        """Remove uploads that are too old, also while nobody sends new ones."""
        while True:
            try:
                await asyncio.to_thread(self.store.sweep)
            except OSError:
                logger.exception("uploads that are too old cannot be removed")
            await asyncio.sleep(self.service.settings.store_max_age_s / SWEEPS_PER_LIFETIME)

    async def add(self, content: bytes) -> PreparedImage:
        """Store an upload, if it is an image.

        Raises:
            ImageError: it is not; and what else :meth:`app.inference.service.Service.prepare` raises.
            StoreFull: the disk has no room.
        """
        image = await self.service.prepare(content)
        await asyncio.to_thread(self.store.put, content)
        self.cache.put(image.id, image, _image_bytes(image))
        return image

    async def image(self, image_id: str) -> PreparedImage:
        """Return a stored image as network input.

        Raises:
            UnknownImage: it is not stored; and what :meth:`app.inference.service.Service.prepare` raises.
        """
        self.store.find(image_id)  # else the cache would outlive the promise of when uploads are removed
        image: PreparedImage | None = self.cache.get(image_id)
        if image is None:
            image = await self.service.prepare(await asyncio.to_thread(self.store.get, image_id))
            self.cache.put(image_id, image, _image_bytes(image))
        return image

    def maps(self, image: PreparedImage, layer: str, stage: MapStage = "output") -> Tensor:
        """Return what :func:`model.views.activations.activation_maps` does."""
        name = layer_at_stage(self.classifier.graph, layer, stage).name
        return self._compute(image, f"maps {name}", lambda: activation_maps(self.classifier, image.tensor, name))

    def logits(self, image: PreparedImage) -> Tensor:
        """Return the (K,) logits by PyTorch in float32, whatever engine answers."""
        return self._logits_and_embedding(image)[0]

    def embedding(self, image: PreparedImage) -> Tensor:
        """Return what :func:`model.views.embedding.embed` does for one image."""
        return self._logits_and_embedding(image)[1]

    def answer(self, image: PreparedImage) -> tuple[Tensor, float | None]:
        """Return the (K,) logits and, by the same pass, the share of known images that are at least as strange.

        That is None if the checkpoint cannot tell.
        """
        logits, embedding = self._logits_and_embedding(image)
        novelty = self.classifier.checkpoint.novelty
        if novelty is None:
            return logits, None
        return logits, float(novelty.measure(embedding[None], logits[None].softmax(1)).p_values[0])

    def _logits_and_embedding(self, image: PreparedImage) -> tuple[Tensor, Tensor]:
        """Return (K,) and (D,), which the views of one image ask for one after the other, from one pass."""
        graph, number = self.classifier.graph, len(self.classifier.class_names)
        layer = embedding_layer(graph)

        def run() -> Tensor:
            outputs = layer_outputs(self.classifier, image.tensor[None], [graph.output, layer])
            return torch.cat([outputs[graph.output].float().cpu()[0], to_embeddings(outputs[layer])[0]])

        both = self._compute(image, "logits and embedding", run)  # (K + D,)
        return both[:number], both[number:]

    def _compute(self, image: PreparedImage, what: str, make: Callable[[], Tensor]) -> Tensor:
        return self.cache.find((image.id, what), make, lambda tensor: tensor.nbytes + ENTRY_BYTES)


def pick(values: Tensor, channel: int, layer: str) -> Tensor:
    """Return one channel of a layer's maps or filters.

    Raises:
        ChannelOutOfRange: with the limits.
    """
    if not 0 <= channel < len(values):
        raise ChannelOutOfRange(channel, layer, len(values))
    return values[channel]


def _image_bytes(image: PreparedImage) -> int:
    return image.tensor.nbytes + ENTRY_BYTES


def _load_index(service: Service) -> Index | str:
    """Return the index beside the checkpoint, or why there is none; the log says more of one that cannot be used."""
    checkpoint = service.classifier.checkpoint
    try:
        return image_index.load_index(image_index.index_path(checkpoint.path), checkpoint.digest)
    except IndexNotFound:
        return "this service has no index of images"
    except IndexFileError as error:
        logger.warning("the index is left out: %s", error)
        return "the index of this service cannot be used, its log says why"


def _load_mistakes(service: Service) -> KeptMistakes | str:
    """Return the mistakes beside the checkpoint, or why there are none, as :func:`_load_index`."""
    checkpoint = service.classifier.checkpoint
    try:
        return kept_mistakes.load_mistakes(kept_mistakes.mistakes_path(checkpoint.path), checkpoint.digest)
    except MistakesNotFound:
        return "this service has no photos that were answered wrongly"
    except MistakesFileError as error:
        logger.warning("the mistakes are left out: %s", error)
        return "the file of mistakes of this service cannot be used, its log says why"
