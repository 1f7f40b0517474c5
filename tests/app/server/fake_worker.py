"""A worker process without a network, which starts at once: started by tests in place of the real one.

Its arguments are the path of a plan, and the two file descriptors that every worker gets. Each process takes the first
line of the plan; the last line is for all that come later. A line is the digest that the process serves, ``die``, or
``fail`` and the reason that it reports. Each line that a client sends is answered with the digest; ``end`` is the last.
"""

import asyncio
import fcntl
import json
import os
import signal
import socket
import sys


def take_line(path: str) -> str:
    with open(path, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        first, *rest = file.read().splitlines()
        if rest:
            file.seek(0)
            file.truncate()
            file.write("\n".join(rest))
        return first


async def serve(listener: socket.socket, report_fd: int, digest: str) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    answering = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.current_task())
        line = b""
        while line != b"end\n" and (line := await reader.readline()):
            writer.write(f"{digest}\n".encode())
        writer.close()

    def read_stdin() -> None:
        if not os.read(0, 65_536):
            loop.remove_reader(0)
            stop.set()

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(0, read_stdin)
    server = await asyncio.start_server(answer, sock=listener)
    with open(report_fd, "w") as report:
        json.dump({"subject": "a fake", "digest": digest}, report)
    await stop.wait()
    server.close()
    await asyncio.gather(*answering)


def main() -> None:
    plan, listener_fd, report_fd = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    step = take_line(plan)
    if step == "die":
        sys.exit(3)
    if step.startswith("fail "):
        with open(report_fd, "w") as report:
            json.dump({"reason": step.removeprefix("fail ")}, report)
        sys.exit(1)
    asyncio.run(serve(socket.socket(fileno=listener_fd), report_fd, step))


if __name__ == "__main__":
    main()
