"""The process that decodes, with a decoder that files can break: started by a test in place of the real one."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from torchlight.app.inference import decoder_process
from torchlight.model import images

good = images.prepare_array
hoard = []


def prepare_array(content: bytes, size: int, **options: Any) -> Any:
    """Do what the file says, if it says anything."""
    said = content.partition(b"BREAK ")[2]
    if said == b"abort":
        os.abort()
    if said == b"killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if said == b"exit":
        os._exit(0)
    if said == b"sleep":
        time.sleep(3600)
    if said == b"loop":
        while True:
            pass
    if said == b"allocate":
        while True:
            hoard.append(bytearray(10_000_000))
    if said.startswith(b"meet "):
        place = Path(os.fsdecode(said.removeprefix(b"meet ")))
        (place / str(os.getpid())).touch()
        while len(list(place.iterdir())) < 3:
            time.sleep(0.01)
    if said == b"babble":
        os.write(1, b"\xff" * 100)
    if said == b"say more":
        os.write(1, decoder_process.REPLY.pack(0, 7, 7, b"GIF") + bytes(3 * size * size))
    return good(content, size, **options)


if __name__ == "__main__":
    images.prepare_array = prepare_array
    decoder_process.main()
