"""Which versions of Torchlight and its libraries are installed."""

import platform
from importlib.metadata import version

DISTRIBUTION = "torchlight-classifier"  # the name `torchlight` on the package index belongs to somebody else


def torchlight_version() -> str:
    """Return the version of the installed package."""
    return version(DISTRIBUTION)


def library_versions(*libraries: str) -> dict[str, str]:
    """Return the versions of Python, of Torchlight and of these libraries, by name."""
    installed = {name: version(name) for name in libraries}
    return {"python": platform.python_version(), "torchlight": torchlight_version(), **installed}
