"""A server that speaks by script: every answer that a Redis could give, and worse."""

from __future__ import annotations

import logging
import resource
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import msgspec
import pytest
import trio
import trustme

from llm_actors.limiter import LimiterRef, reserve, statistics
from llm_actors.redis import RedisServer
from llm_protocol.policy import Limits
from llm_protocol.secret import Secret
from support.ledger import used
from support.redis import redis
from support.sharing import PATIENT, claim, kept, replica, spend, until_shared

LIMITS = {"a": Limits(requests_per_minute=60_000)}

HELLO = b"%3\r\n+version\r\n+7.0.0\r\n+proto\r\n:3\r\n+id\r\n:1\r\n"

TIMEOUT = 5.0
SLACK = 5.0


@asynccontextmanager
async def speaking(
    *answers: bytes | None, hello: bytes = HELLO, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[int]]]:
    """A server that logs one in, and gives these answers to scripts, the last one again and again; None is silence.

    Yields its port, and how many connections it has had and has.
    """
    seen = [0, 0]

    async def serve(stream: trio.abc.Stream) -> None:
        scripts = 0
        seen[0] += 1
        seen[1] += 1
        try:
            async with trio.SSLStream(stream, tls, server_side=True) if tls else stream as wire:
                while data := await wire.receive_some(65_536):
                    for word in (b"HELLO", b"SETINFO", b"PING", b"EVALSHA"):
                        for _ in range(data.count(b"\r\n" + word + b"\r\n")):
                            answer = {b"HELLO": hello, b"PING": b"+PONG\r\n", b"SETINFO": b"+OK\r\n"}.get(word, b"")
                            if word == b"EVALSHA":
                                answer = answers[min(scripts, len(answers) - 1)] or b""
                                scripts += 1
                            await wire.send_all(answer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            seen[1] -= 1

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1], seen
        nursery.cancel_scope.cancel()


def bulk(value: object) -> bytes:
    data = msgspec.msgpack.encode(value)
    return b"$%d\r\n%s\r\n" % (len(data), data)


def replies(*answers: object, now: float = 1_700_000_000.5) -> bytes:
    return bulk([now, answers])


NOTHING = replies()

WRONG: dict[str, bytes | None] = {
    "garbage": b"\x00\xff\x13garbage\r\n",
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "huge bulk": b"$9999999999999\r\n" + b"x" * 100_000,
    "negative bulk": b"$-7\r\n",
    "bulk without length": b"$abc\r\n",
    "bulk without value": b"$-1\r\n",
    "nested arrays": b"*1\r\n" * 100_000,
    "nested arrays that end": b"*1\r\n" * 100_000 + b":1\r\n",
    "huge array": b"*999999999\r\n" + b":1\r\n" * 10_000,
    "huge number": b":" + b"9" * 100_000 + b"\r\n",
    "endless line": b"+" + b"x" * 1_000_000,
    "half an answer": NOTHING[:-1],
    "silence": None,
    "empty": b"$0\r\n\r\n",
    "a number": b":5\r\n",
    "a map of maps": b"%1\r\n%1\r\n+a\r\n+b\r\n+c\r\n",
    "not msgpack": b"$3\r\n\xc1\xc1\xc1\r\n",
    "no answers": NOTHING,
    "too many answers": replies(*[[True, 0, 0, 0, [["b", 1]]]] * 3),
    "another limit": replies([True, 5.0, 7, 0, [["b", 1]]]),
    "no marks": replies([True, 0, 0, 0, []]),
    "neither": replies([False, 0, 0, 0, []]),
    "no number": replies([True, float("nan"), 0, 0, [["b", 1]]]),
    "for ever": replies([True, float("inf"), 0, 0, [["b", 1]]]),
    "no time": replies([True, 0, 0, 0, [["b", 1]]], now=float("nan")),
    "another time": replies([True, 0, 0, 0, [["b", 1]]], now=1e300),
    "in the past": replies([True, -1.0, 0, 0, [["b", 1]]]),
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "moved": b"-MOVED 3999 127.0.0.1:6381\r\n",
    "busy": b"-BUSY Redis is busy running a script\r\n",
    "unknown error": b"-\xff\xfe\r\n",
}


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert not [record for record in caplog.records if record.name.startswith("coredis") or record.exc_info]
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def at(port: int, scheme: str = "redis", query: str = "") -> RedisServer:
    return RedisServer(url=Secret(f"{scheme}://127.0.0.1:{port}/0{query}"), timeout_s=TIMEOUT)


@pytest.mark.parametrize("wrong", WRONG)
async def test_after_nonsense_the_connection_is_closed_and_the_request_goes(
    wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In bounded time and memory, and with one line that one can read."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with speaking(NOTHING, WRONG[wrong]) as (port, seen), replica(at(port), LIMITS) as ref:
        assert (await statistics(ref)).shared
        assert await claim(ref) < TIMEOUT + SLACK
        assert not (await statistics(ref)).shared
        assert await claim(ref) < TIMEOUT, "nobody is asked"
        with trio.fail_after(SLACK):
            while seen[1]:  # noqa: ASYNC110
                await trio.sleep(0.001)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"
    (line,) = warnings(caplog)
    assert "is unavailable" in line
    assert len(line) < 500
    assert line.isprintable()


@pytest.mark.parametrize(
    "hello", [b"-NOPROTO unsupported protocol version\r\n", b"-ERR unknown command\r\n", b"*0\r\n"]
)
async def test_nonsense_at_the_login(hello: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with speaking(NOTHING, hello=hello) as (port, _), replica(at(port), LIMITS) as ref:
        assert not (await statistics(ref)).shared
        assert await claim(ref) < TIMEOUT, "nobody is asked"
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(("host", "shared"), [("127.0.0.1", True), ("redis.example", False)])
async def test_with_tls_the_certificate_is_the_servers(
    host: str, shared: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not anybody's whom the same authority knows."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with speaking(NOTHING, tls=context) as (port, _):
        async with replica(at(port, "rediss", f"?ssl_ca_certs={tmp_path / 'ca.pem'}"), LIMITS) as ref:
            assert (await statistics(ref)).shared is shared
    assert shared or "certificate" in warnings(caplog)[0]


async def test_no_answer_reaches_anothers_claim() -> None:
    """Two callers, whose claims are cancelled at random; each is charged what it asked for, and no other."""
    callers = {"x": Limits(tokens_per_minute=10**9), "y": Limits(tokens_per_minute=10**9)}
    draw, went = Random(8), {"x": 0, "y": 0}

    async def ask(ref: LimiterRef, caller: str, tokens: int) -> None:
        with trio.move_on_after(draw.choice((0, 0.0005, 0.001, 0.002, 60))):
            (await reserve(ref, ("a",), tokens=tokens, caller=caller)).settle(None)
            went[caller] += tokens

    with redis() as server:
        async with replica(server.server(timeout_s=PATIENT), {"a": Limits()}, callers) as ref:
            for _ in range(20):
                async with trio.open_nursery() as nursery:
                    for _ in range(25):
                        nursery.start_soon(ask, ref, "x", 1)
                        nursery.start_soon(ask, ref, "y", 1000)
            await trio.sleep(0.1)
            assert (await statistics(ref)).shared
            assert (await statistics(ref)).leases == 0
            for caller, size in (("x", 1), ("y", 1000)):
                charged = used(kept(server, caller, "caller")["t"])
                assert charged % size == 0
                assert went[caller] <= charged <= 500 * size
                assert went[caller] > 0


async def test_several_wait_for_a_server_that_comes_to_itself() -> None:
    """Claims of the same moment go in one run, and none is lost."""
    with redis() as server:
        async with replica(server.server(timeout_s=PATIENT), LIMITS) as ref:
            await trio.sleep(0.2)
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(spend, ref)
            assert await until_shared(ref) < 1
            assert used(kept(server, "a")["r"]) == 20
