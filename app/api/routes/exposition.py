"""The metrics, in Prometheus' text format."""

import asyncio

from fastapi import APIRouter, Response

from torchlight.app.api.dependencies import RunningService
from torchlight.app.telemetry.metrics import CONTENT_TYPE

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {CONTENT_TYPE: {}}}})
async def metrics(service: RunningService) -> Response:
    """Give all metrics in Prometheus' text format, those of the service's other processes included."""
    service.publish()
    content = await asyncio.to_thread(service.metrics.exposition)
    return Response(content, media_type=CONTENT_TYPE)
