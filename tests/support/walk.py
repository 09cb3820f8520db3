"""Which files take part in a request, in a delta and in a crash: those with a frame that is executed, in that order.

A real server, and a vendor at the wire. The client and the vendor run in threads, which are not profiled: what is
recorded is what the runtime executes between one byte and another. A file counts if all of three requests execute it,
so that a tick of a clock between them does not.
"""

from __future__ import annotations

import ast
import inspect
import re
import socket
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, final

import trio

from llm_actors.cache.key import CacheKey
from llm_actors.cache.messages import Store
from llm_runtime.config import parse
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child

ROOT = Path(__file__).resolve().parents[2]
ROOTS = tuple(f"{ROOT / part}/" for part in ("protocol", "actors", "runtime"))

MOST_IN, MOST_BACK = 60, 15
"""Files that a request's way in and a delta's way back may take."""

REPETITIONS = 3
WAIT_SECONDS = 10.0
COROUTINE_FLAGS = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
AWAIT_BYTES = 6
"""Bytes of code in the loop that one ``await`` is."""
BEGIN_OFFSET = 8
"""Bytes of code before the first instruction of a coroutine that is not there to begin it."""
SETTLE_SECONDS = 0.1

CONFIG = """
[server]
port = 0

[providers.vendor]
kind = "openai_compatible"
base_url = "http://127.0.0.1:{port}/v1"
models = ["m"]
"""

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[%b]}\n\n'
DELTA = _EVENT % b'{"index":0,"delta":{"content":"word "},"finish_reason":null}'
LAST = _EVENT % b'{"index":0,"delta":{},"finish_reason":"stop"}' + b"data: [DONE]\n\n"
BODY = b'{"model":"vendor/m","stream":true,"messages":[{"role":"user","content":"Say hi"}]}'
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b"
) % (len(BODY), BODY)


class Walks(NamedTuple):
    """Paths below the repository's folder, in the order of their first frames."""

    way_in: list[str]
    way_back: list[str]
    crash: list[str]


@final
class Wires:
    """The client's and the vendor's socket, as threads use them."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT_SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self._client: socket.socket | None = None
        self._vendor: socket.socket | None = None

    def connect(self, address: ListenAddress) -> None:
        """Connect the client."""
        self._client = socket.create_connection((address.host, address.port), WAIT_SECONDS)

    def ask(self) -> None:
        """Send the request, and wait until all of it has come to the vendor."""
        assert self._client is not None
        self._client.sendall(REQUEST)
        if self._vendor is None:
            self._vendor, _ = self._listener.accept()
            self._vendor.settimeout(WAIT_SECONDS)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0 or len(data) < end + 4 + _length(data[:end]):
            data += self._vendor.recv(65_536)

    def begin(self) -> None:
        """Send the head of the response and a first delta; wait until that has come to the client."""
        assert self._vendor is not None
        self._vendor.sendall(HEAD)
        self.delta()

    def delta(self) -> None:
        """Send a delta, and wait until it has come to the client."""
        self._say(DELTA, b"word ")

    def end(self) -> None:
        """End the stream, and wait until the client has seen its end."""
        self._say(LAST, b"0\r\n\r\n", b"0\r\n\r\n")

    def _say(self, event: bytes, mark: bytes, after: bytes = b"") -> None:
        assert self._client is not None
        assert self._vendor is not None
        self._vendor.sendall(b"%x\r\n%b\r\n%b" % (len(event), event, after))
        data = b""
        while mark not in data:
            came = self._client.recv(65_536)
            assert came, "the server closed the connection"
            data += came

    def close(self) -> None:
        """Close all sockets."""
        for each in (self._listener, self._client, self._vendor):
            if each is not None:
                each.close()


def _length(head: bytes) -> int:
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return int(fields[b"content-length"])


@contextmanager
def footprints() -> Iterator[dict[str, None]]:
    """The files of ours with a frame that this thread executes in the block, in order. Imports do not count.

    A coroutine that waits for another is resumed with it: the profiler is called, though nothing of it is executed.
    Such a frame counts only if it calls something or moves on before it waits again.
    """
    seen: dict[str, None] = {}
    resumed: dict[FrameType, int] = {}

    def count(frame: FrameType | None) -> None:
        if frame is not None and (name := frame.f_code.co_filename).startswith(ROOTS):
            if frame.f_code.co_name != "<module>":
                seen.setdefault(name)
            resumed.pop(frame, None)

    def profile(frame: FrameType, event: str, _: Any) -> None:
        is_coroutine = bool(frame.f_code.co_flags & COROUTINE_FLAGS)
        if event == "call" and is_coroutine and frame.f_lasti > BEGIN_OFFSET:
            resumed[frame] = frame.f_lasti
        elif event == "call":
            count(frame.f_back)
            count(frame)
        elif event == "c_call" or (
            event == "return" and abs(resumed.get(frame, frame.f_lasti) - frame.f_lasti) > AWAIT_BYTES
        ):
            count(frame)
        if event == "return":
            resumed.pop(frame, None)

    sys.setprofile(profile)
    try:
        yield seen
    finally:
        sys.setprofile(None)


async def unprofiled(function: Callable[..., None]) -> None:
    """Run ``function`` in a thread of its own, which is not profiled, and wait for it."""
    done, token = trio.Event(), trio.lowlevel.current_trio_token()
    failed: list[Exception] = []

    def work() -> None:
        try:
            function()
        except Exception as exc:  # raised below
            failed.append(exc)
        token.run_sync_soon(done.set)

    threading.Thread(target=work).start()
    await done.wait()
    if failed:
        raise failed[0]


async def _request(wires: Wires) -> tuple[dict[str, None], dict[str, None]]:
    with footprints() as way_in:
        await unprofiled(wires.ask)
        await trio.sleep(SETTLE_SECONDS)
    await unprofiled(wires.begin)
    await trio.sleep(SETTLE_SECONDS)
    with footprints() as way_back:
        await unprofiled(wires.delta)
        await trio.sleep(SETTLE_SECONDS)
    await unprofiled(wires.end)
    await trio.sleep(SETTLE_SECONDS)
    return way_in, way_back


async def _crash(runtime: Runtime, key: bytes) -> dict[str, None]:
    """Crash the cache. A second message with the same ``key`` would be refused as poison."""
    with footprints() as seen:
        runtime._tree.services.cache.cast(Store(answers=((CacheKey(key), None),)))  # type: ignore[arg-type]
        await trio.sleep(SETTLE_SECONDS)
    return seen


async def _walk() -> Walks:
    wires, addresses = Wires(), list[ListenAddress]()
    config = parse(CONFIG.format(port=wires.port).encode(), {})
    try:
        async with Runtime(
            config, servers=lambda runtime: server_child(config.server, runtime, addresses.append)
        ).running() as runtime:
            await unprofiled(lambda: wires.connect(addresses[0]))
            await _request(wires)  # the first one imports what it needs
            requests = [await _request(wires) for _ in range(REPETITIONS)]
            crashes = [await _crash(runtime, b"%d" % number) for number in range(REPETITIONS)]
    finally:
        wires.close()
    return Walks(
        _in_all([way_in for way_in, _ in requests]), _in_all([way_back for _, way_back in requests]), _in_all(crashes)
    )


def _in_all(seen: list[dict[str, None]]) -> list[str]:
    return [str(Path(each).relative_to(ROOT)) for each in seen[0] if all(each in others for others in seen)]


@cache
def walks() -> Walks:
    """The three walks."""
    return trio.run(_walk)


def summary(path: str) -> str:
    """The first sentence of a file's docstring."""
    text = " ".join((ast.get_docstring(ast.parse((ROOT / path).read_text())) or "").split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".:")


def page(paths: list[str]) -> str:
    """A numbered list for ``docs/architecture.md``."""
    lines: list[str] = []
    for number, path in enumerate(paths, 1):
        start = f"{number}. "
        wrapper = textwrap.TextWrapper(110, start, " " * len(start), break_on_hyphens=False)
        lines += wrapper.wrap(f"`{path.partition('/')[2]}`: {summary(path)}")
    return "\n".join(lines)


def as_written(paths: list[str], text: str) -> list[str]:
    """``paths``, in the order in which ``text`` has them if it has all of them: which of two tasks runs first is not
    always the same.
    """
    places = [text.find(f"`{path.partition('/')[2]}`") for path in paths]
    is_same = -1 not in places and len(re.findall(r"^\d+\. `", text, re.MULTILINE)) == len(paths)
    return [path for _, path in sorted(zip(places, paths, strict=True))] if is_same else paths


def main() -> int:
    """Print the walks; 1 if one is longer than it may be."""
    way_in, way_back, crash = walks()
    for name, paths in ("way in", way_in), ("way back of a delta", way_back), ("a crash", crash):
        print(f"{name}: {len(paths)} files")
        for path in paths:
            print(f"  {path}")
    print(f"way in {len(way_in)} of at most {MOST_IN}, way back {len(way_back)} of at most {MOST_BACK}")
    return int(len(way_in) > MOST_IN or len(way_back) > MOST_BACK)
