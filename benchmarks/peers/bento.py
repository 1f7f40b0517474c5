"""BentoML: one process with an API for each core, one thread each, adaptive batching off as it is by default."""

from pathlib import Path
from typing import Any

import bentoml

from benchmarks.peers.network import Network


@bentoml.service(workers=2, traffic={"timeout": 60})
class Peer:
    def __init__(self) -> None:
        self.network = Network(threads=1, is_channels_last=True)

    @bentoml.api(route="/v1/predict")
    def predict(self, file: Path) -> dict[str, Any]:
        images = self.network.prepare(file.read_bytes())[None]
        return self.network.describe(self.network.probabilities(images)[0])
