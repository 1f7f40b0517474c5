"""FastAPI, tuned: as many processes as cores, one thread each, channels-last."""

from typing import Any

from fastapi import FastAPI, UploadFile

from benchmarks.peers.network import Network

app = FastAPI()
network = Network(threads=1, is_channels_last=True)


@app.post("/v1/predict")
async def predict(file: UploadFile) -> dict[str, Any]:
    images = network.prepare(await file.read())[None]
    return network.describe(network.probabilities(images)[0])
