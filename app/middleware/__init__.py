"""Pure ASGI around every request, in the order it runs: request log, authentication, body limits."""
