"""multipart/form-data -> its parts, in memory: the bodies of requests are bounded before they come here.

The parser is python-multipart's, as it is Starlette's; but Starlette's form puts each file into a temporary file, moved
to the disk beyond 1 MB, and takes longer for a small picture than decoding it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from torchlight.app.errors import UnreadableForm

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


@dataclass
class Part:
    """One field; ``filename`` is None if it is not a file."""

    name: str
    filename: str | None
    pieces: list[bytes] = field(default_factory=list)

    @property
    def content(self) -> bytes:
        """The whole value."""
        return b"".join(self.pieces)


async def read_form(chunks: AsyncIterator[bytes], content_type: str, *, max_files: int, max_fields: int) -> list[Part]:
    """Return the form's parts, in order; one that the body's end cuts off is left out.

    Args:
        max_fields: of those that are not files.

    Raises:
        UnreadableForm: with the reason.
    """
    _, options = parse_options_header(content_type)
    if b"boundary" not in options:
        raise UnreadableForm("the content type names no boundary")
    reader = _Reader(max_files, max_fields)
    try:
        parser = MultipartParser(options[b"boundary"], reader.callbacks())
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise UnreadableForm("its parts are not divided as it says") from error
    return reader.parts


class _Reader:
    """Collects what the parser finds."""

    def __init__(self, max_files: int, max_fields: int) -> None:
        self.parts: list[Part] = []
        self._left = {True: max_files, False: max_fields}  # by whether it is a file
        self._header = [b"", b""]  # name and value of the one that is being read
        self._disposition = b""
        self._part = Part("", None)

    def callbacks(self) -> "MultipartCallbacks":
        """Return what the parser calls. The reader does not keep it: a circle would hold the file until the next
        collection of garbage, and each upload would need new memory, cold in the processor's caches.
        """
        return {
            "on_header_field": lambda data, start, end: self._extend(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._extend(1, data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_part,
            "on_part_data": lambda data, start, end: self._part.pieces.append(data[start:end]),
            "on_part_end": lambda: self.parts.append(self._part),
        }

    def _extend(self, which: int, piece: bytes) -> None:
        self._header[which] += piece

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = [b"", b""]

    def _begin_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        if b"name" not in options:
            raise UnreadableForm("a part has no name")
        is_file = b"filename" in options
        if self._left[is_file] == 0:
            raise UnreadableForm(f"it has too many {'files' if is_file else 'other fields'}")
        self._left[is_file] -= 1
        filename = _decode(options[b"filename"]) if is_file else None
        self._part = Part(_decode(options[b"name"]), filename)


def _decode(text: bytes) -> str:
    """Return UTF-8 as browsers send it; any other bytes as Latin-1. No charset is asked for: Python knows hundreds."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")
