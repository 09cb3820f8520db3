"""A large upload and a large download through ``/passthrough``: the speed, and the memory of the daemon.

    bin/bench passthrough [MEGABYTES]

The daemon is a process with a core of its own; vendor and client share another. Memory is the resident set of the
daemon, before the transfer and at its peak.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from time import perf_counter

import trio

from bench.daemon import System, system_under_test

KEY = "sk-bench-0123456789abcdef"
PIECE = b"\0" * 65_536
MB = 1 << 20
CONFIG = """
[keys.bench]
secret = "env:BENCH_KEY"
passthrough = ["* vendor/**"]
[providers.vendor]
kind = "openai_compatible"
base_url = "http://127.0.0.1:{port}/v1"
models = ["m"]
"""


async def vendor(stream: trio.SocketStream) -> None:
    """Swallows what is posted, and says how much it was; gives as much as a GET's path says."""
    async with stream:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some(65_536)
        head, _, rest = data.partition(b"\r\n\r\n")
        if head.startswith(b"GET"):
            size = int(head.split(b" ")[1].rpartition(b"/")[2])
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            for _ in range(size // len(PIECE)):
                await stream.send_all(PIECE)
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        received = len(rest)
        while received < length:
            received += len(await stream.receive_some(1 << 20))
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")


def _head(method: str, path: str, fields: str = "") -> bytes:
    start = f"{method} /passthrough/vendor/v1/{path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n"
    return f"{start}{fields}\r\n".encode()


async def upload(port: int, size: int) -> None:
    """Post ``size`` bytes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(_head("POST", "files", f"content-length: {size}\r\n"))
        for _ in range(size // len(PIECE)):
            await stream.send_all(PIECE)
        answer = await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]


async def download(port: int, size: int) -> None:
    """Get ``size`` bytes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(_head("GET", f"files/{size}"))
        received = -1
        while received < size:
            data = await stream.receive_some(1 << 20)
            assert data, "the answer was cut"
            received = len(data.partition(b"\r\n\r\n")[2]) if received < 0 else received + len(data)


def _highest(daemon: System) -> int:
    """The most memory that it had so far, in bytes."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def measure(megabytes: int) -> None:
    """Print the table."""
    size = megabytes * MB
    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        nursery.start_soon(trio.serve_listeners, vendor, [listener])
        port = listener.socket.getsockname()[1]
        with system_under_test(CONFIG.format(port=port)) as daemon:
            for name, work in (("warm-up", upload), ("upload", upload), ("download", download)):
                before, began = daemon.resident(), perf_counter()
                await work(daemon.port, MB if name == "warm-up" else size)
                seconds = perf_counter() - began
                print(
                    f"{name:9} {1 if name == 'warm-up' else megabytes:6} MB in {seconds:6.2f} s, "
                    f"memory before {before / MB:5.1f} MB, highest {_highest(daemon) / MB:5.1f} MB",
                    flush=True,
                )
        nursery.cancel_scope.cancel()


def main() -> int:
    """See the module."""
    os.environ["BENCH_KEY"] = KEY
    trio.run(measure, int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
    return 0
