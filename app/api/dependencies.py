"""What routes are handed by FastAPI."""

from typing import Annotated

from fastapi import Depends, Query, Request

from torchlight.app.api.schemas import COVERAGE_TEXT
from torchlight.app.inference.service import Service
from torchlight.app.inspection.inspector import Inspector
from torchlight.model.defaults import LOWEST_COVERAGE


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _inspector(request: Request) -> Inspector:
    inspector: Inspector = request.app.state.inspector
    return inspector


RunningService = Annotated[Service, Depends(_service)]
RunningInspector = Annotated[Inspector, Depends(_inspector)]
TopK = Annotated[int | None, Query(ge=1, description="How many labels; without it, all.")]
Coverage = Annotated[float | None, Query(ge=LOWEST_COVERAGE, lt=1, description=COVERAGE_TEXT)]
