"""What it costs to decode in a process of its own, beside the same in a thread.

python -m benchmarks.decoding [rounds]

Both take turns in one run. CPU time is that of both sides; it does not depend on what else the machine does, as the
median of the whole time does.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from stress.hostile_images import draw_image, encode
from torchlight.app.inference.decoder_pool import DecoderPool
from torchlight.model.images import MAX_PIXELS, Resizing, prepare_image

ROUNDS = 100
RESIZING = Resizing(32)
CASES = {
    "32x32 JPEG": encode(draw_image(size=(32, 32)), "JPEG"),
    "100 kB photo, 1024x768 JPEG": encode(draw_image(size=(1024, 768)), "JPEG", quality=85),
    "12 MP photo, 4000x3000 JPEG": encode(draw_image(size=(4000, 3000)), "JPEG", quality=85),
    "2 MP PNG": encode(draw_image(size=(1600, 1200)), "PNG"),
}


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    drawn = Table("file", "kB", "thread CPU ms", "process CPU ms", "extra", "thread ms", "process ms", box=None)
    loop = asyncio.Runner()
    decoders = DecoderPool(number=1, queue_size=1, time_limit_s=60, max_pixels=MAX_PIXELS, max_bytes=20_000_000)
    loop.run(decoders.start())
    (pid,) = decoders.pids
    for name, content in CASES.items():
        in_thread = Clock(lambda content=content: prepare_image(content, RESIZING), pid)
        in_process = Clock(lambda content=content: loop.run(decoders.prepare(content, RESIZING, None)), pid)
        for _ in range(rounds):
            in_thread.run()
            in_process.run()
        plain, apart = in_thread.cpu_ms(), in_process.cpu_ms()
        figures = (plain, apart, apart - plain, median(in_thread.taken_ms), median(in_process.taken_ms))
        drawn.add_row(name, str(len(content) // 1000), *(f"{figure:.2f}" for figure in figures))
    loop.run(decoders.close())
    loop.close()
    drawn.title = f"{rounds} rounds, {os.cpu_count()} cores"
    Console(width=140).print(drawn)


class Clock:
    """The times of one way of decoding, ten calls at a time, since the kernel counts CPU in hundredths of a second."""

    CALLS = 10

    def __init__(self, call: Callable[[], object], pid: int) -> None:
        self._call, self._pid = call, pid
        self._cpu_s = 0.0
        self.taken_ms: list[float] = []

    def run(self) -> None:
        cpu = self._cpu_now_s()
        for _ in range(self.CALLS):
            started = time.perf_counter()
            self._call()
            self.taken_ms.append(1000 * (time.perf_counter() - started))
        self._cpu_s += self._cpu_now_s() - cpu

    def cpu_ms(self) -> float:
        """Return the CPU time of one call, in this process and the one that decodes."""
        return 1000 * self._cpu_s / len(self.taken_ms)

    def _cpu_now_s(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
