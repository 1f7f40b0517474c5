"""Authentication before every route: host name, API key, rate limit. It refuses before a body is read.

Everything is closed but what is listed here, by the path that the router gets too: the header Host has no part in it.
"""

import base64
from typing import Any

from fastapi import FastAPI, Security
from fastapi.params import Depends
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from torchlight.app.api import problems
from torchlight.app.errors import TooManyRequests, UnknownHost, WrongKey
from torchlight.app.security import trusted_hosts
from torchlight.app.security.api_keys import Keys, parse_keys
from torchlight.app.security.rate_limit import RateLimit, network_of
from torchlight.app.settings import Settings, listed
from torchlight.app.telemetry.request_facts import get_request_facts

OPEN_ROUTES = {"probes": ("/livez", "/readyz"), "metrics": ("/metrics",), "docs": ("/docs", "/openapi.json")}
STATIC = ("/page/", "/docs/assets/")  # files that are the same for everyone, always open
FOREIGN = ("cross-site", "same-site")  # of the header Sec-Fetch-Site, which browsers send and pages cannot set


def install_authentication(app: FastAPI, settings: Settings) -> None:
    """Put authentication before the routes, and CORS before it, so that other sites' pages can read a refusal.

    Raises:
        InvalidKeys: the file of keys cannot be used.
    """
    app.add_middleware(Authentication, settings=settings, keys=_keys(settings))
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=listed(settings.cors_origins),
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "If-None-Match", "traceparent", "X-API-Key", "X-Request-ID"),
            expose_headers=("ETag", "Location", "Retry-After", "Server-Timing", "traceresponse", "X-Request-ID"),
        )


class Authentication:
    """Middleware that passes on the requests that are allowed, and answers all others."""

    def __init__(self, app: ASGIApp, settings: Settings, keys: Keys | None) -> None:
        self._app = app
        self._hosts = listed(settings.allowed_hosts)
        self._keys = keys
        self._limit = RateLimit(settings.rate_limit) if settings.rate_limit else None
        self._open = {path for name in listed(settings.open_routes) for path in OPEN_ROUTES.get(name, ())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and not self._is_open(scope["path"]):
            try:
                await self._check(Request(scope))
            except (UnknownHost, WrongKey, TooManyRequests) as error:
                app = _refusal(Request(scope), error)
        await app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self._open or path.startswith(STATIC)

    async def _check(self, request: Request) -> None:
        trusted_hosts.check_host(request.headers.get("host", ""), self._hosts)
        holder = self._keys.holder(_secrets(request)) if self._keys else None
        get_request_facts(request.scope).client = holder
        if self._limit:
            address = request.client.host if request.client else "unknown"
            await self._limit.hit(f"key {holder}" if holder else f"address {network_of(address)}")
        if self._keys and not holder:
            raise WrongKey(
                "an API key is needed, and none came that this service knows; "
                "send `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            )


def _keys(settings: Settings) -> Keys | None:
    if not settings.has_keys:
        return None
    given = settings.api_keys and parse_keys(settings.api_keys.get_secret_value(), "TORCHLIGHT_API_KEYS")
    return Keys(given or (), settings.api_keys_file)


def _secrets(request: Request) -> list[str]:
    """Return all in the request that may be a key."""
    headers = request.headers
    scheme, _, value = headers.get("authorization", "").partition(" ")
    secrets = headers.getlist("x-api-key")
    if scheme.lower() == "bearer":
        secrets.append(value.strip())
    elif scheme.lower() == "basic" and not _is_forged(request.method, headers):
        secrets += _unpack(value)
    return secrets


def _is_forged(method: str, headers: Headers) -> bool:
    """Whether another site's page may have made the browser send this, with the password that it keeps for us."""
    return method not in ("GET", "HEAD") and headers.get("sec-fetch-site") in FOREIGN


def _unpack(value: str) -> list[str]:
    """Return user and password: the browser's own dialog asks for both, and the key may be in either."""
    try:
        return base64.b64decode(value.strip(), validate=True).decode().split(":", 1)
    except ValueError:  # of every kind: not Base64, not ASCII, not UTF-8
        return []


def _refusal(request: Request, error: UnknownHost | WrongKey | TooManyRequests) -> Response:
    status, code = problems.TABLE[type(error)]
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, TooManyRequests) else {}
    response = problems.respond_with_problem(request, status, code, str(error), headers)
    if isinstance(error, WrongKey):
        for challenge in _challenges(request.headers):
            response.headers.append("WWW-Authenticate", challenge)  # a field each: browsers do not divide one
    return response


def _challenges(headers: Headers) -> tuple[str, ...]:
    """Return how a key may be sent.

    Basic makes a browser show its dialog; clients that already sent a key get Bearer only.
    """
    bearer, basic = 'Bearer realm="Torchlight"', 'Basic realm="Torchlight", charset="UTF-8"'
    has_tried = "x-api-key" in headers or headers.get("authorization", "")[:7].lower() == "bearer "
    return (bearer,) if has_tried else (bearer, basic)


def schemes(settings: Settings) -> list[Depends]:
    """Return what makes /docs ask for a key, where one is needed. It checks nothing: the middleware has."""
    if not settings.has_keys:
        return []
    bearer = HTTPBearer(scheme_name="bearer", description="An API key.", auto_error=False)
    header = APIKeyHeader(name="X-API-Key", scheme_name="header", description="An API key.", auto_error=False)
    return [Security(bearer), Security(header)]


def document_refusals(settings: Settings) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of authentication, as far as these settings can cause them."""
    can = {
        401: settings.has_keys,
        421: settings.allowed_hosts != "*",
        429: settings.rate_limit is not None,
    }
    return problems.document_problems(*(status for status, possible in can.items() if possible))
