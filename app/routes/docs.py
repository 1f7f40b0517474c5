"""The interactive documentation, from files that were installed with the service: nothing is fetched from elsewhere."""

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
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Torchlight",
        swagger_js_url="docs/assets/swagger-ui-bundle.js",
        swagger_css_url="docs/assets/swagger-ui.css",
        swagger_favicon_url="docs/assets/favicon-32x32.png",
        swagger_ui_parameters={"validatorUrl": None, "displayRequestDuration": True},
    )
