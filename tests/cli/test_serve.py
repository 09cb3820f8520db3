"""``llm-runtime serve`` as a service manager meets it: ready, signals, exit codes, one line for what is wrong."""

import json
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio

from llm_actors.transport import HttpRequest, HttpResponse, Transport, TransportError, parse_url
from support import commands
from support.peer import Peer, chunked, sse, stall


def piece(text: str, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


ENDLESS = [
    chunked(f"data: {piece('Hel')}\n\n".encode(), headers={"content-type": "text/event-stream"}, end=False),
    stall(),
]


def config(folder: Path, peer: Peer, drain_s: float = 30, more: str = "") -> str:
    file = folder / "c.toml"
    file.write_text(
        f"[server]\nport = 0\ndrain_s = {drain_s}\n"
        f'[providers.p]\nkind = "openai_compatible"\nbase_url = "{peer.url}/v1"\nmodels = ["m"]\n{more}'
    )
    return str(file)


@asynccontextmanager
async def serving(*arguments: str, **environ: str) -> AsyncGenerator[tuple[trio.Process, str]]:
    """A daemon that is ready, and its URL."""
    async with commands.running("serve", *arguments, environ=environ) as process:
        ready, _, url = (await commands.line(process.stdout)).partition(" ")
        assert ready == "ready"
        yield process, url


@asynccontextmanager
async def streaming(url: str) -> AsyncGenerator[HttpResponse]:
    """One streamed answer in progress."""
    origin, _ = parse_url(url)
    body = json.dumps({"model": "p/m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = HttpRequest("POST", origin, "/v1/chat/completions", {"content-type": "application/json"}, body)
    transport = Transport()
    try:
        async with transport.send(request) as response:
            assert response.status == 200
            yield response
    finally:
        with trio.move_on_after(1, shield=True):
            await transport.aclose()


async def until(response: HttpResponse, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        part = await response.receive()
        assert part, seen
        seen += part
    return seen


async def refuses(url: str) -> bool:
    origin, _ = parse_url(url)
    try:
        async with aclosing(Transport()) as transport, transport.send(HttpRequest("GET", origin, "/livez")):
            return False
    except TransportError:
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_ready_is_the_first_line_and_a_signal_ends_it_with_0(tmp_path: Path, number: signal.Signals) -> None:
    """Idle."""
    async with Peer() as peer, serving("--config", config(tmp_path, peer)) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        process.send_signal(number)
        assert await process.wait() == 0
        assert await commands.rest(process.stdout) == ""
        err = await commands.rest(process.stderr)
        assert f"llm-runtime: provider p  (configured in {tmp_path}/c.toml)" in err
        assert f'try: llm-runtime ask --url {url} "Say hello."' in err
        assert err.endswith("INFO llm_runtime.daemon: stopped\n"), "whoever reads the log knows that it was no crash"


async def test_with_json_every_line_of_stderr_is_an_object(tmp_path: Path) -> None:
    """And where keys are configured, the line that says what to try says where the key goes."""
    async with Peer() as peer:
        file = config(tmp_path, peer, more='[keys.me]\nsecret = "env:MINE"\n')
        async with serving("--config", file, "--log-format", "json", MINE="CANARY-secret") as (process, url):
            process.terminate()
            assert await process.wait() == 0
            err = await commands.rest(process.stderr)
    messages = [json.loads(line)["message"] for line in err.splitlines()]
    assert f"provider p  (configured in {file})" in messages
    assert f'try: LLM_RUNTIME_KEY=… llm-runtime ask --url {url} "Say hello."' in messages
    assert "CANARY" not in err
    (short,) = [each for each in map(json.loads, err.splitlines()) if "has fewer than" in each["message"]]
    assert short["level"] == "warning", "as after a reload"


async def test_the_providers_found_and_passed_over_are_told() -> None:
    async with serving("--port", "0", OPENAI_API_KEY="sk-CANARY", CEREBRAS_API_KEY="é") as (process, _):
        process.terminate()
        assert await process.wait() == 0
        err = await commands.rest(process.stderr)
        assert "llm-runtime: provider openai" in err
        assert "(OPENAI_API_KEY is set)" in err
        assert "CEREBRAS_API_KEY is not a key" in err
        assert "CANARY" not in err


async def test_a_running_answer_finishes_after_sigterm(tmp_path: Path) -> None:
    """Streams shorter than the drain limit: they end whole, nothing new is taken, exit 0."""
    answer = sse(*[piece("x")] * 5, piece("", "stop"), "[DONE]", gap=0.1)
    async with Peer(answer) as peer, serving("--config", config(tmp_path, peer)) as (process, url):
        async with streaming(url) as response:
            await until(response, b'"x"')
            process.terminate()
            seen = await until(response, b"[DONE]")
            assert b'"finish_reason":"stop"' in seen
        assert await process.wait() == 0
        assert await refuses(url)


async def test_an_endless_answer_is_told_its_end_at_the_limit(tmp_path: Path) -> None:
    """Past the limit a terminal event, then gone soon, exit 0, though the client holds on to its connection."""
    async with Peer(ENDLESS) as peer, serving("--config", config(tmp_path, peer, 0.2)) as (process, url):
        async with streaming(url) as response:
            await until(response, b"Hel")
            process.terminate()
            with trio.fail_after(10):
                await until(response, b"shutting_down")
                assert await process.wait() == 0
        assert peer.aborted == 1
        log = await commands.rest(process.stderr)
        assert "shutting_down" in log  # what the client was told
        assert "cancelled" not in log


async def test_a_client_that_says_nothing_does_not_hold_it_up(tmp_path: Path) -> None:
    async with Peer() as peer, serving("--config", config(tmp_path, peer)) as (process, url):
        with socket.create_connection(parse_url(url)[0][1:]) as silent:
            silent.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\n12")
            process.terminate()
            with trio.fail_after(8):
                assert await process.wait() == 0


async def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    async with Peer(ENDLESS) as peer, serving("--config", config(tmp_path, peer)) as (process, url):
        async with streaming(url) as response:
            await until(response, b"Hel")
            process.terminate()
            await commands_until(process, "a second signal ends them")
            process.terminate()
            with trio.fail_after(10):
                assert await process.wait() == 130
                await peer.until(lambda: peer.open_connections == 0)


async def commands_until(process: trio.Process, text: str) -> None:
    while text not in await commands.line(process.stderr):
        pass


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE])
async def test_it_lives_through_other_signals(tmp_path: Path, number: signal.Signals) -> None:
    async with Peer() as peer, serving("--config", config(tmp_path, peer)) as (process, url):
        process.send_signal(number)
        assert not await refuses(url)
        process.terminate()
        assert await process.wait() == 0


async def test_it_lives_when_nobody_reads_it(tmp_path: Path) -> None:
    """``serve | head -1``, with stderr gone as well"""
    async with Peer(sse(piece("x"), piece("", "stop"), "[DONE]")) as peer:
        async with serving("--config", config(tmp_path, peer)) as (process, url):
            assert process.stdout
            assert process.stderr
            await process.stdout.aclose()
            await process.stderr.aclose()
            async with streaming(url) as response:
                await until(response, b"[DONE]")
            process.terminate()
            assert await process.wait() == 0


@pytest.mark.parametrize("closed", ["<&- >&-", "<&- 2>&-"])
async def test_it_starts_with_closed_standard_files(tmp_path: Path, closed: str) -> None:
    """Their numbers must not go to a socket, where what is printed would be sent."""
    async with Peer() as peer:
        command = shlex.join([*commands.COMMAND, "serve", "--config", config(tmp_path, peer)])
        async with commands.started(["/bin/sh", "-c", f"exec {command} {closed}"], subprocess.PIPE, {}) as process:
            if "2" in closed:
                assert (await commands.line(process.stdout)).startswith("ready ")
            else:
                await commands_until(process, "try: llm-runtime ask")
            names = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (0, 1, 2)]
            assert names.count(os.devnull) == 2
            assert "socket:" not in "".join(names)
            process.terminate()
            assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "server.host: 0.0.0.0 is reachable from other machines: add a key, [keys.NAME]"),
        (["--host", "203.0.113.7"], "server.host: 203.0.113.7 is reachable from other machines"),
        (["--host", "no host"], "server.host: 'no host' is not an address or host name"),
        (["--host", "127.0.0.1", "--config", "/no.toml"], "/no.toml: cannot read the configuration"),
    ],
)
async def test_what_must_be_put_right_exits_with_2_and_one_line(arguments: list[str], said: str) -> None:
    code, out, err = await commands.run("serve", *arguments, OPENAI_API_KEY="k")
    assert (code, out) == (2, "")
    assert err.startswith(f"llm-runtime: {said}")
    assert len(err.splitlines()) == 1


async def test_a_port_in_use_exits_with_2_and_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, out, err = await commands.run("serve", "--port", port, OPENAI_API_KEY="k")
    assert (code, out) == (2, "")
    assert err == (
        f"llm-runtime: port {port} on 127.0.0.1 is in use: stop the other program, or choose another port with --port\n"
    )


@pytest.mark.parametrize("port", ["-1", "65536", "http", "9" * 5000, "²"])
async def test_what_is_no_port_is_refused(port: str) -> None:
    code, _, err = await commands.run("serve", f"--port={port}")
    assert code == 2
    assert "is not a port (0 to 65535)" in err
    assert "Traceback" not in err
