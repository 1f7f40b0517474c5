"""Security headers of every answer, unless the route has its own: no guessing of types, no frames, no other sites."""

import re
import uuid

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"  # of an answer that is data

SECURITY = {
    "Content-Security-Policy": NOTHING,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",  # other sites get what CORS opens, and no pictures by <img> either
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",  # the page takes pictures
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

ENCODED = [(name.lower().encode(), value.encode()) for name, value in SECURITY.items()]  # as ASGI has them


def request_id_of(given: str) -> str:
    """Return the id that a caller gave the request, if it is well formed; else a new one."""
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
