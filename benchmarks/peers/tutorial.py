"""FastAPI as most tutorials have it: one process, a plain function, one image at a time."""

from typing import Any

from fastapi import FastAPI, UploadFile

from benchmarks.peers.network import Network

app = FastAPI()
network = Network()


@app.post("/v1/predict")
def predict(file: UploadFile) -> dict[str, Any]:
    images = network.prepare(file.file.read())[None]
    return network.describe(network.probabilities(images)[0])
