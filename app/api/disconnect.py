"""Stops work whose client has left: FastAPI lets its handler run to the end."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

Result = TypeVar("Result")


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what ``work`` returns, or cancel it when the client leaves. The request's body must have been read.

    Raises:
        ClientDisconnect: the client left first. Else, what ``work`` raises.
    """
    task = asyncio.current_task()
    assert task is not None, "called by a coroutine, so there is one"
    departure = asyncio.create_task(_departure(request, task))
    try:
        return await work
    except asyncio.CancelledError:
        has_left = departure.done() and not departure.exception()
        if has_left and task.uncancel() == 0:  # else somebody else cancelled it too
            raise ClientDisconnect from None
        raise
    finally:
        departure.cancel()


async def _departure(request: Request, task: asyncio.Task[Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    task.cancel()
