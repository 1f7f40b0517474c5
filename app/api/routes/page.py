"""The page that people see at /: files that were installed with the service, and nothing from elsewhere."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).parents[2] / "page"
# Why each exception is there: docs/decisions/page.md.
POLICY = "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"


class _Assets(StaticFiles):
    """Files that a browser asks after each time, so that after an update no module is older than another."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def assets() -> GZipMiddleware:
    """Return the page's style, modules and example pictures, text compressed to a third."""
    return GZipMiddleware(_Assets(directory=FOLDER))


@router.get("/")
async def page() -> FileResponse:
    """Show the page. Addresses in it are relative, so that a proxy may put the service under a prefix."""
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return FileResponse(FOLDER / "index.html", headers=headers)
