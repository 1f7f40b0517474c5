"""What routes are handed by FastAPI."""

from typing import Annotated

from fastapi import Depends, Query, Request

from app.service import Service


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


RunningService = Annotated[Service, Depends(_service)]
TopK = Annotated[int | None, Query(ge=1, description="How many labels; without it, all.")]
