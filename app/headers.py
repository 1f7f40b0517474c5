"""What every answer tells browsers, unless the route has its own: no guessing of types, no frames, no other sites."""

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
