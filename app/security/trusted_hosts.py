"""The names under which the service answers. Knows nothing of HTTP but what its header Host looks like."""

import re

from torchlight.app.errors import UnknownHost

PATTERN = r"\*|(\*\.)?[a-z0-9.-]+|\[[0-9a-f:]+\]"
HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:[0-9]*)?")


def check_host(header: str, allowed: tuple[str, ...]) -> None:
    """Make sure that the request is for one of ``allowed``: names, ``*.name`` for those below, or ``*`` for any.

    Raises:
        UnknownHost: it is not.
    """
    found = HOST.fullmatch(header)
    name = found[1].lower().removesuffix(".") if found else ""
    if not any(_fits(name, pattern) for pattern in allowed):
        raise UnknownHost(
            f"host is {header[:200]!r}, and this service does not answer under that name; "
            "its operator lists those that it does"
        )


def _fits(name: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and name != pattern[1:]
    return pattern in ("*", name)
