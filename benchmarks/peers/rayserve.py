"""Ray Serve: two replicas of one thread behind its proxy, with its batching."""

import sys
import time
from typing import Any

import torch
from ray import serve
from starlette.requests import Request

from benchmarks.peers.network import Network


@serve.deployment(num_replicas=2, max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.5})
class Peer:
    def __init__(self) -> None:
        self.network = Network(threads=1, is_channels_last=True)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.002)
    async def compute(self, contents: list[bytes]) -> list[dict[str, Any]]:
        images = torch.stack([self.network.prepare(content) for content in contents])
        return [self.network.describe(one) for one in self.network.probabilities(images)]

    async def __call__(self, request: Request) -> dict[str, Any]:
        async with request.form() as form:
            return await self.compute(await form["file"].read())


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Peer.bind(), route_prefix="/v1/predict")
    while True:
        time.sleep(60)
