"""FastAPI, with a short way to the routes that the service is about."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from torchlight.app.inference.service import Service


class Application(FastAPI):
    """FastAPI, but direct routes are called as they are: endpoint(request, service).

    FastAPI documents them, and calls them only if there is a query to validate: to go through its layers and to find
    out that nothing else depends on the request takes it a while.

    Its outer layers are left out for all routes: our middleware has a catch-all, traces and a limit of bodies.
    """

    def __init__(self, direct: APIRouter, **options: Any) -> None:
        """Make an application without routes.

        Args:
            direct: its routes are direct, and their paths have no parameters; it has to be included as any other.
            options: of FastAPI; ``debug`` and ``max_body_size`` have no effect.
        """
        # Else each request asks three times whether somebody collects FastAPI's own traces.
        super().__init__(telemetry={"tracing": False, "metrics": False, "logs": False}, **options)
        routes = [route for route in direct.routes if isinstance(route, APIRoute)]
        self._direct = {(method, route.path): route for route in routes for method in route.methods or ()}

    def build_middleware_stack(self) -> ASGIApp:
        """Return the routes behind the handlers of exceptions, behind our middleware. ``state.service`` must be set."""
        routes = _ShortWay(self._direct, self.state.service, AsyncExitStackMiddleware(self.router))
        app: ASGIApp = ExceptionMiddleware(routes, self.exception_handlers)
        for middleware, args, kwargs in reversed(self.user_middleware):
            app = middleware(app, *args, **kwargs)
        return app


class _ShortWay:
    """Direct routes, and FastAPI's router for all others."""

    def __init__(self, direct: dict[tuple[str, str], APIRoute], service: Service, router: ASGIApp) -> None:
        self._direct = direct
        self._service = service
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._direct.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None or scope["query_string"]:
            await self._router(scope, receive, send)
            return
        scope["route"] = route
        endpoint: Callable[[Request, Service], Awaitable[Response]] = route.endpoint
        response = await endpoint(Request(scope, receive), self._service)
        await response(scope, receive, send)
