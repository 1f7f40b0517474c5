"""Whether the process lives, and whether it can answer."""

from fastapi import APIRouter

from torchlight.app.api.dependencies import RunningService
from torchlight.app.api.problems import document_problems
from torchlight.app.api.schemas import Health
from torchlight.app.errors import NotReady

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> Health:
    """Say that the process answers. Looks at nothing else, so that a busy service is not restarted."""
    return Health(status="ok")


@router.get("/readyz", responses=document_problems(503))
async def readyz(service: RunningService) -> Health:
    """Say whether requests should come here: once the network has answered its canary image right, until it drains."""
    if service.state != "ready":
        raise NotReady(f"the service is {service.state}")
    return Health(status="ready")
