"""File descriptors: how many there are is found out at the start, and a full process goes on working."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from llm_runtime.config import Server
from llm_runtime.descriptors import LEAST_CONNECTIONS, OTHER_FILES, PRELOADED, fitted
from llm_runtime.server.limits import DEPARTING_CONNECTIONS, RESERVED_CONNECTIONS
from support import commands
from support.peer import Peer, reply

ROOT = Path(__file__).parents[2]
NEEDED = OTHER_FILES + RESERVED_CONNECTIONS + DEPARTING_CONNECTIONS
CHAT = b'{"model":"p/m","messages":[{"role":"user","content":"hi"}]}'
ANSWER = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]}'
)


@pytest.mark.parametrize(
    ("files", "connections", "runs"),
    [
        (-1, 1_000, 5_000),
        (NEEDED + 6_000, 1_000, 5_000),
        (NEEDED + 5_999, 1_000, 4_999),
        (NEEDED + 2_000, 1_000, 1_000),
        (NEEDED + 1_999, 999, 1_000),
        (NEEDED + 100, 50, 50),
        (64, LEAST_CONNECTIONS, LEAST_CONNECTIONS),
    ],
)
def test_limits_are_fitted_to_the_descriptors_there_are(files: int, connections: int, runs: int) -> None:
    server = fitted(Server(), files)
    assert (server.max_connections, server.max_runs) == (connections, runs)


def test_limits_are_never_raised() -> None:
    assert fitted(Server(max_connections=3, max_runs=2), 100_000) == Server(max_connections=3, max_runs=2)


async def test_a_daemon_with_few_descriptors_says_so_and_serves(tmp_path: Path) -> None:
    """With room for 48 files beyond what it needs, 300 silent connections neither end it nor take what leads to
    providers, and nothing it imports late is missing.
    """
    files = NEEDED + 48
    limited = (sys.executable, "-P", "-c", LIMITED.format(soft=64, hard=files), *commands.COMMAND[1:])
    config = tmp_path / "c.toml"
    async with Peer(reply(ANSWER, headers={"content-type": "application/json"})) as peer, AsyncExitStack() as stack:
        config.write_text(
            f"[server]\nport = 0\n"
            f'[providers.p]\nkind = "openai_compatible"\nbase_url = "{peer.url}/v1"\nmodels = ["m"]\n'
        )
        process = await stack.enter_async_context(
            commands.started([*limited, "serve", "--config", str(config)], subprocess.PIPE, {})
        )
        ready, _, url = (await commands.line(process.stdout)).partition(" ")
        assert ready == "ready"
        port = int(url.rpartition(":")[2])
        for _ in range(300):
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
        for head, body, expected in (
            ("GET /livez", b"", b'{"status":"ok"}'),
            ("GET /metrics", b"", b"llm_runtime_"),
            ("GET /", b"", b"<html"),
            ("GET /v1/models", b"", b"p/m"),
            ("POST /v1/chat/completions", CHAT, b"Hello"),
            ("POST /v1/messages", b'{"model":"p/m","max_tokens":5,' + CHAT.partition(b",")[2], b"Hello"),
        ):
            answer = await ask(port, head, body)
            assert answer.startswith(b"HTTP/1.1 200"), answer
            assert expected in answer
        process.terminate()
        await process.wait()
        said = await commands.rest(process.stderr)
        assert (
            f"the process may open only {files} files, so it allows at most 24 connections and 24 requests in progress "
            "instead of the configured 1000 and 5000; " in said
        )
        assert "Traceback" not in said


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


async def ask(port: int, head: str, body: bytes) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        fields = f"{head} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        await stream.send_all(fields.encode() + body)
        return b"".join([bytes(piece) async for piece in stream])


# -- imports that come late ------------------------------------------------------------------------------------------

AT_START = {
    "coredis",
    "coredis.exceptions",
    "coredis.retry",
    "llm_actors.transport.http2",
    "llm_actors.cache.redis_tier",
    "llm_actors.cache.file_tier",
    "llm_actors.store.tier",
    "llm_runtime.config",
    "llm_runtime.config.checking",
    "llm_runtime.local_model",
    "llm_runtime.telemetry.export",
    "tomllib",
}
"""Imported late, but before requests are taken; only if they are configured."""

OTHER_COMMANDS = {"cli", "probes", "fake", "local_model", "testing", "aio.py", "sync.py"}
"""What no request of the daemon leads to, or what it does not run."""


def late_imports() -> Iterator[str]:
    """The modules that functions import."""
    for folder in ("protocol", "actors", "runtime"):
        for file in (ROOT / folder).rglob("*.py"):
            if OTHER_COMMANDS.isdisjoint(file.relative_to(ROOT).parts):
                for function in ast.walk(ast.parse(file.read_text())):
                    if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                        yield from imported(function)


def imported(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            yield node.module


def test_what_requests_import_is_imported_before_descriptors_can_run_out() -> None:
    """Else the import fails with "too many open files" and the request with it."""
    code = "import sys, trio, llm_runtime.daemon as d; trio.run(d.preload); print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set(late_imports()) - AT_START - set(done.stdout.split()) == set()
    assert len(PRELOADED) == len(set(PRELOADED))


def test_the_soft_limit_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_runtime.descriptors import raise_limit

    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4_096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    assert raise_limit() == 4_096
    assert raised == [(4_096, 4_096)]
