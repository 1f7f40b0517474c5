"""The interactive documentation, from files that were installed with the service: nothing is fetched from elsewhere."""

import base64
import hashlib
import re

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)


def assets() -> StaticFiles:
    """Return Swagger UI's files; the package's own code is not run."""
    return StaticFiles(packages=[("fastapi_swagger", "resources")])


@router.get("/docs")
async def docs() -> HTMLResponse:
    """Show Swagger UI. Addresses here are relative, so that a proxy may put the service under a prefix."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Torchlight",
        swagger_js_url="docs/assets/swagger-ui-bundle.js",
        swagger_css_url="docs/assets/swagger-ui.css",
        swagger_favicon_url="docs/assets/favicon-32x32.png",
        swagger_ui_parameters={"validatorUrl": None, "displayRequestDuration": True},
    )
    page.headers["Content-Security-Policy"] = _policy(bytes(page.body).decode())
    return page


def _policy(html: str) -> str:
    """Allow the page's one inline script by its hash, and what Swagger UI draws: inline styles, icons as data."""
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'self'; script-src 'self' 'sha256-{digest}'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
