"""The decoder process, with a decoder that files can break: started by tests in place of the real one."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from torchlight.app.inference import decoder_process
from torchlight.model import images

good = images.prepare_array
hoard = []


def prepare_array(content: bytes, resizing: images.Resizing, **options: Any) -> Any:
    """Follow the command in the file, if there is one."""
    command = content.partition(b"BREAK ")[2]
    if command == b"abort":
        os.abort()
    if command == b"killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if command == b"exit":
        os._exit(0)
    if command == b"sleep":
        time.sleep(3600)
    if command == b"loop":
        while True:
            pass
    if command == b"allocate":
        while True:
            hoard.append(bytearray(10_000_000))
    if command.startswith(b"meet "):
        place = Path(os.fsdecode(command.removeprefix(b"meet ")))
        (place / str(os.getpid())).touch()
        while len(list(place.iterdir())) < 3:
            time.sleep(0.01)
    if command == b"babble":
        os.write(1, b"\xff" * 100)
    if command == b"say more":
        os.write(1, decoder_process.REPLY.pack(0, 7, 7, b"GIF") + bytes(3 * resizing.size**2))
    return good(content, resizing, **options)


if __name__ == "__main__":
    images.prepare_array = prepare_array
    decoder_process.main()
