"""The one way a file is written: at every moment either the old or the new one is there, whole."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODE = 0o644  # mkstemp makes a file private; a service often runs as another user than the one who trained


@contextmanager
def replacing(path: Path, *, mode: int = MODE, is_durable: bool = True) -> Iterator[Path]:
    """Yield an empty temporary file beside ``path``; what the block writes into it then takes the place of ``path``.

    When the block raises, the temporary file is removed and an older file at ``path`` is untouched. A process that is
    killed leaves it behind, under the name ``.<name>.<random>.part``.

    Args:
        mode: the permissions of the new file.
        is_durable: whether a power failure, too, leaves either the old or the new file; that costs some milliseconds.

    Raises:
        OSError: the folder cannot be written, and what the block raises.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(mode)
        if is_durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file.

    Raises:
        OSError: it cannot be written; an older file at ``path`` is untouched.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)
