"""API keys: held as hashes only, compared in constant time, a file of them read again while the service runs.

Knows nothing of HTTP.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torchlight.app.errors import InvalidKeys
from torchlight.app.telemetry.logs import logger

MIN_CHARACTERS = 32  # 128 bits as `openssl rand -hex 16` writes them: guessing is hopeless, and a fast hash will do
REREAD_S = 1.0  # how long a key that was taken out of the file may still open; a look costs less than 0.1 ms
# A name ends at the first `=` with anything but `=` after it: those that pad base64 belong to the key.
ENTRY = re.compile(r"(?:(?P<name>[A-Za-z0-9_.-]{1,64})=(?!=*$))?(?P<secret>[!-+\--~]+)")
HASHED = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Key:
    """The SHA-256 of a key, in hex, and whom the log calls its holder. Several keys may share a name."""

    name: str
    digest: str


def parse_keys(text: str, source: str) -> tuple[Key, ...]:
    """Return the keys in ``text``, at least one.

    Args:
        text: entries ``key``, ``name=key``, ``sha256:<hex>`` or ``name=sha256:<hex>``, divided by commas or white
            space; lines that start with ``#`` are comments.
        source: where they come from, for the message.

    Raises:
        InvalidKeys: an entry is no key, or too short to be one; it is named by its position.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    entries = [entry for entry in re.split(r"[,\s]+", "\n".join(lines)) if entry]
    if not entries:
        raise InvalidKeys(f"{source} holds no key; without keys, unset it")
    return tuple(_parse_key(entry, f"{source}: key {number}") for number, entry in enumerate(entries, 1))


def _parse_key(entry: str, place: str) -> Key:
    found = ENTRY.fullmatch(entry)
    if found is None:
        raise InvalidKeys(f"{place} has characters other than visible ASCII")
    secret = found["secret"]
    if secret.startswith("sha256:"):
        hashed = HASHED.fullmatch(secret)
        if hashed is None:
            raise InvalidKeys(f"{place} starts with sha256: but 64 digits of lower-case hex do not follow")
        digest = hashed[1]
    elif len(secret) < MIN_CHARACTERS:
        raise InvalidKeys(
            f"{place} has {len(secret)} characters; at least {MIN_CHARACTERS} are needed, "
            "as `openssl rand -hex 32` makes them"
        )
    else:
        digest = _hash_key(secret)
    return Key(found["name"] or f"key-{digest[:8]}", digest)


class Keys:
    """The keys that open the service: those given once, and those that the file holds now."""

    def __init__(
        self, given: tuple[Key, ...], file: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the file for the first time.

        Raises:
            InvalidKeys: it cannot be read, or what is in it.
        """
        self._given = given
        self._file = file
        self._clock = clock
        self._text = _read_file(file) if file else ""
        self._filed = parse_keys(self._text, str(file)) if file else ()
        self._read_at = clock()

    def holder(self, secrets: Iterable[str]) -> str | None:
        """Return the name of the key that one of these is; None if none is.

        Every key is compared, and each in constant time, so that the time taken tells nothing about them.
        """
        self._read_again()
        digests = [_hash_key(secret) for secret in secrets]
        names = [
            key.name
            for key in self._given + self._filed
            for digest in digests
            if hmac.compare_digest(key.digest, digest)
        ]
        return names[0] if names else None

    def _read_again(self) -> None:
        """Take over what the file holds by now; a file that is not right leaves the keys as they are."""
        if self._file is None or self._clock() - self._read_at < REREAD_S:
            return
        self._read_at = self._clock()
        try:
            text = _read_file(self._file)
            if text == self._text:
                return
            self._filed = parse_keys(text, str(self._file))
        except InvalidKeys as error:
            logger.error("the keys stay as they were", extra={"facts": {"reason": str(error)}})
            return
        self._text = text
        logger.info("keys read again", extra={"facts": {"keys": len(self._filed)}})


def _read_file(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except OSError as error:
        raise InvalidKeys(f"the file of API keys {file} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InvalidKeys(f"the file of API keys {file} is not ASCII text (byte {error.start})") from error


def _hash_key(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
