"""The child process that decodes uploads: files come in on standard input, pixels go out on standard output.

Run by :mod:`app.inference.decoder_pool` with the arguments ``TIME_LIMIT_S MAX_PIXELS MAX_BYTES``. Imports no torch. The
frames, in network byte order:

- request: 8 bytes length of the file, 4 bytes side S of the network's input, 1 byte place of the resize rule
  in ``model.images.RESIZE_RULES``, the file
- reply: 4 bytes length of the error, 4 bytes each width and height, 4 characters of the format's name; then the error,
  a JSON object, or if there is none S x S x 3 pixel values, (3, S, S) uint8 RGB
- the first reply, all zeros, says that the process is ready

Whatever a file does to the decoder ends with the process: the kernel kills it after the time limit, or when it has
computed for longer than so large an image can take, and refuses it more memory than images of ``MAX_PIXELS`` take. It
ends by itself when its input does; signals to the service are not for it.
"""

import contextlib
import json
import os
import resource
import signal
import struct
import sys

from torchlight.app.inference import priority
from torchlight.model import images
from torchlight.model.errors import ImageError

REQUEST = struct.Struct("!QIB")
RULES = tuple(images.RESIZE_RULES)
REPLY = struct.Struct("!III4s")
CPU_S = 0.5  # for the header of a file and what does not depend on its size; hundreds of times what photos take
CPU_S_PER_PIXEL = 1e-7  # several times what the slowest format takes
BYTES_PER_PIXEL = 24  # progressive CMYK, the most: 8 for coefficients, 4 as CMYK, 4 turned upright, 4 as RGB
COPIES = 3  # of a file: as received, as the decoder copies it, and the previous file until this one is complete
SPARE_BYTES = 128_000_000  # for the tables of decoders


def main() -> None:
    """Answer requests until the input ends."""
    time_limit_s, max_pixels, max_bytes = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)
    priority.lower_priority(priority.DECODING)
    keep_freed_memory()
    bound_memory(BYTES_PER_PIXEL * max_pixels + COPIES * max_bytes + SPARE_BYTES)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)  # C libraries write warnings about files there
    with open(0, "rb") as requests, open(1, "wb") as replies:
        replies.write(bytes(REPLY.size))
        replies.flush()
        while head := requests.read(REQUEST.size):
            length, size, rule = REQUEST.unpack(head)
            content = requests.read(length)
            signal.setitimer(signal.ITIMER_REAL, time_limit_s)  # not caught: these signals end the process
            allow_cpu(0)
            reply = _decode(content, images.Resizing(size, RULES[rule]), max_pixels)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            replies.write(reply)
            replies.flush()


def allow_cpu(pixels: int) -> None:
    """Let the process compute, from now on, for as long as an image of so many pixels may take."""
    signal.setitimer(signal.ITIMER_PROF, CPU_S + CPU_S_PER_PIXEL * pixels)


def keep_freed_memory() -> None:
    """Let the C library keep up to 64 MB of what was freed: to ask for it anew took as long as decoding a photo.

    glibc keeps up to twice the largest block that was freed, if that had 32 MB at most: so this frees such a block.
    """
    bytearray(32_000_000)


def bound_memory(room: int) -> None:
    """Refuse this process more than ``room`` bytes beyond what it has, and a core file, which would hold an upload."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:  # Linux only, as is a limit that holds
        limit = int(file.read().split()[0]) * resource.getpagesize() + room
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _decode(content: bytes, resizing: images.Resizing, max_pixels: int) -> bytes:
    """Return the reply to a request."""
    try:
        pixels, image = images.prepare_array(content, resizing, max_pixels=max_pixels, before_pixels=allow_cpu)
    except ImageError as error:
        report = json.dumps({"error": type(error).__name__, "detail": str(error)}).encode()
        return REPLY.pack(len(report), 0, 0, b"") + report
    return REPLY.pack(0, image.width, image.height, image.format.encode()) + pixels.tobytes()


if __name__ == "__main__":
    main()
