"""API keys, rate limits, host names and response headers. Knows no ASGI."""
