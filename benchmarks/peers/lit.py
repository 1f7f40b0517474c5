"""LitServe: its own batching, decoding in the worker. Settings by ``--batch``, ``--workers`` and ``--port``."""

import argparse
from typing import Any

import litserve
import torch
from fastapi import Request
from torch import Tensor

from benchmarks.peers.network import Network


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.network = Network(threads=1, is_channels_last=True)

    def decode_request(self, request: Request) -> Tensor:
        return self.network.prepare(request["file"].file.read())

    def batch(self, inputs: list[Tensor]) -> Tensor:
        return torch.stack(inputs)

    def predict(self, images: Tensor) -> Tensor:
        return self.network.probabilities(images if images.ndim == 4 else images[None])

    def unbatch(self, output: Tensor) -> list[Tensor]:
        return list(output)

    def encode_response(self, output: Tensor) -> dict[str, Any]:
        return self.network.describe(output.reshape(-1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    api = Api(max_batch_size=arguments.batch, batch_timeout=0.005, api_path="/v1/predict")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=arguments.workers)
    server.run(port=arguments.port, host="127.0.0.1", generate_client_file=False, num_api_servers=1)
