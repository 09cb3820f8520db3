"""The actor that owns the local model's process.

The actor's start ends when the process passes the health check. The actor crashes when the process ends, so that its
supervisor starts another one. The process always ends before the actor does. Each process gets a new port, so the actor
writes the new address to the `Endpoint`, which the provider actor uses too. The provider actor is the next child of the
same supervisor, so it is restarted together with this actor (rest_for_one).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Never, Protocol, final

import trio

from llm_actors.kernel import Actor, ActorMessage, ChildSpec, Inbox
from llm_actors.transport import HttpRequest, Transport, TransportError, parse_url
from llm_protocol.vendors import LOCAL_MODEL, LOCAL_SLOTS
from llm_runtime.local_model.files import find_model

START_SECONDS = 30.0
"""Seconds that loading the model may take. It usually takes about 1."""

QUIT_SECONDS = 2.0
"""Seconds that the process may take to end after its stdin was closed, and again after it was killed."""

POLL_SECONDS = 0.05
"""Seconds between two health checks while the model loads."""

TAIL_BYTES = 2048
"""The bytes of the end of the process's stderr that are kept, for the message of a crash."""

LINE_CHARS = 500
"""The most characters that the message of a crash quotes from the last line of stderr."""

ADDRESS_BYTES = 256
"""The longest line, in bytes, with which the process reports its address."""


class EngineError(Exception):
    """The local model's process did not start, or ended."""


ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
"""The environment variables that are passed to the process. Others may contain keys."""


class Movable(Protocol):
    """An object that receives the address at which the process listens: an `Endpoint`."""

    def move(self, base_url: str) -> None: ...


def command() -> list[str]:
    """Return the command line of the process. Raises `EngineError` if the model is not installed."""
    model = find_model()
    if model is None:
        raise EngineError("the local model is not installed; install it with: llm-runtime model install")
    child = os.path.join(os.path.dirname(__file__), "child.py")
    threads = max(1, (os.cpu_count() or 1) // 2)  # more threads become very slow when other programs use the cores
    return [sys.executable, "-P", child, str(model), LOCAL_MODEL, str(LOCAL_SLOTS), str(threads)]


def engine_spec(endpoint: Movable, command: Callable[[], Sequence[str]] = command) -> ChildSpec[Never]:
    """Return the engine as a supervised child. The provider actor that uses ``endpoint`` must come after it."""
    shutdown = 2 * QUIT_SECONDS + 1

    def factory(_: object) -> Actor[Never]:
        return LocalModelEngine(endpoint, command)

    return ChildSpec("engine", factory, shutdown=shutdown, start_timeout=START_SECONDS, mailbox=None)


@final
class LocalModelEngine:
    """Runs the process of ``command()``. Accepts no messages."""

    def __init__(self, endpoint: Movable, command: Callable[[], Sequence[str]] = command) -> None:
        self._endpoint = endpoint
        self._command = command

    async def run(self, inbox: Inbox[ActorMessage], *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until asked to stop. Raises `EngineError` if the process does not start, or ends by itself."""
        process = await _open(self._command())
        tail = Tail()
        problem = ""
        try:
            async with trio.open_nursery() as nursery:
                scope = nursery.cancel_scope
                inbox.when_stopping(lambda: scope.cancel(reason="asked to stop"))
                nursery.start_soon(tail.follow, process)
                nursery.start_soon(self._start, process, task_status)
                await process.wait()
                with trio.move_on_after(QUIT_SECONDS):  # a grandchild may hold the pipe open
                    await tail.drained.wait()
                problem = f"the local model's process {_ended(process)}{tail.last_words()}"
                scope.cancel(reason="the process ended")
        finally:
            await _end(process)
        if problem:
            raise EngineError(problem)

    async def _start(self, process: trio.Process, task_status: trio.TaskStatus[None]) -> None:
        base_url = await _address(process)
        await _healthy(base_url)
        self._endpoint.move(f"{base_url}/v1")
        task_status.started()


@final
class Tail:
    """The end of a process's stderr."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self.drained = trio.Event()

    async def follow(self, process: trio.Process) -> None:
        """Read stderr to its end, so that the process never blocks on it; keep `TAIL_BYTES`."""
        assert process.stderr is not None
        async for piece in process.stderr:
            self._pieces.append(bytes(piece[-TAIL_BYTES:]))
            self._size += len(self._pieces[-1])
            while self._size - len(self._pieces[0]) >= TAIL_BYTES:
                self._size -= len(self._pieces.popleft())
        self.drained.set()

    def last_words(self) -> str:
        """Return ``: `` and the last non-empty line, made printable; empty if there is none."""
        text = b"".join(self._pieces)[-TAIL_BYTES:].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return ": " + "".join(char for char in lines[-1] if char.isprintable())[:LINE_CHARS] if lines else ""


async def _open(command: Sequence[str]) -> trio.Process:
    try:
        return await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            start_new_session=True,  # Ctrl-C in a terminal is for us: responses in progress may finish
        )
    except OSError as exc:
        raise EngineError(f"the local model's process did not start: {exc.strerror}") from exc


def _ended(process: trio.Process) -> str:
    code = process.returncode
    assert code is not None
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


async def _address(process: trio.Process) -> str:
    """Return the URL that the process prints after ``listening``. Waits without a limit: the start timeout ends the
    wait.
    """
    assert process.stdout is not None
    line = b""
    while b"\n" not in line:
        piece = await process.stdout.receive_some(ADDRESS_BYTES)
        if not piece:
            await trio.sleep_forever()  # it is ending, and `run` will say how
        line += piece
        if len(line) > ADDRESS_BYTES:
            break
    word, _, address = line.partition(b"\n")[0].decode(errors="replace").partition(" ")
    if word != "listening":
        raise EngineError("the local model's process did not report its address")
    return address


async def _healthy(base_url: str) -> None:
    """Wait until the server at ``base_url`` has loaded its model."""
    origin, base = parse_url(base_url)
    transport = Transport()
    request = HttpRequest("GET", origin, f"{base}/health")
    try:
        while True:
            with suppress(TransportError):
                async with transport.send(request) as response:
                    if response.status == 200:
                        return
            await trio.sleep(POLL_SECONDS)
    finally:
        with trio.move_on_after(QUIT_SECONDS, shield=True):
            await transport.aclose()


async def _end(process: trio.Process) -> None:
    """Close stdin, which ends the process; kill it if that does not. The time is bounded, and cancellation does not
    shorten it.
    """
    with trio.CancelScope(shield=True):
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.move_on_after(QUIT_SECONDS):
            await process.wait()
        if process.returncode is None:
            process.kill()
            with trio.move_on_after(QUIT_SECONDS):
                await process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            await pipe.aclose()
