"""A thousand attackers without a key beside fifty streams of callers: how late the streams are, and how much memory is
used.

    bin/bench attack [SECONDS]

There are four kinds of attackers: those that send a body without a key, connect and send nothing, try wrong keys one
after another, or send a head byte by byte. An attacker that is disconnected returns a second later. They come from
loopback, which has no limit per address, and then from another address of the machine, if it has one. Measured: how
late the tokens of each caller's stream are, whether a new caller is accepted, and the memory and CPU share of the
daemon.

The daemon has one core; provider, callers and attackers share the other, the attackers with the lowest priority. The
delay of a token is the time from when the provider sent it (the token says when) to when it reached the caller's socket
(the kernel says when). So a busy provider does not count, and a busy caller hardly. Other load on the machine does
count: compare with the first row, or run ``chrt --rr 5 bin/bench attack``.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from statistics import quantiles
from time import perf_counter
from typing import NamedTuple

import trio

from bench.daemon import CHAT, CONFIG, HERE, System, process, system_under_test

ATTACKERS = 1_000
STREAMS = 50
GAP_SECONDS = 0.05
"""Between two tokens of a stream."""

SO_TIMESTAMPNS = 35
"""Linux: the kernel tells when bytes arrived, in `TIMESTAMP`."""

TIMESTAMP = struct.Struct("qq")
STAMP = re.compile(rb"<(\d+)>")

SECONDS = 20.0
LATE_SECONDS = 0.1
"""What the 99th percentile of a stream's tokens may come late."""

RESIDENT_MB = 100.0
KEY = "sk-bench-0123456789abcdef"
KEYS = """
[server]
host = "0.0.0.0"
insecure_no_tls = true
allowed_hosts = ["bench"]

[keys.bench]
secret = "env:BENCH_KEY"
"""
BODY = bytes(256 * 1024)

Attack = Callable[[trio.SocketStream], Awaitable[None]]


async def body(stream: trio.SocketStream) -> None:
    """Send a body for which there is no key, as fast as it is taken."""
    head = b"POST /v1/responses HTTP/1.1\r\nhost: bench\r\ncontent-length: %d\r\n\r\n" % (16 * 1024 * 1024)
    await stream.send_all(head)
    for _ in range(64):
        await stream.send_all(BODY)
    await until_closed(stream)


async def silence(stream: trio.SocketStream) -> None:
    """Say nothing."""
    await until_closed(stream)


async def wrong_key(stream: trio.SocketStream) -> None:
    """Try one key."""
    key = os.urandom(8).hex()
    await stream.send_all(f"GET /v1/models HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n\r\n".encode())
    await until_closed(stream)


async def slow_head(stream: trio.SocketStream) -> None:
    """Send a head byte by byte."""
    for byte in b"POST /v1/responses HTTP/1.1\r\nhost: bench\r\nx-long: " + b"a" * 10_000:
        await stream.send_all(bytes([byte]))
        await trio.sleep(0.5)


async def until_closed(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass


ATTACKS: tuple[Attack, ...] = (body, silence, wrong_key, slow_head)


async def attack(host: str, port: int, kind: Attack) -> None:
    """One attacker, for ever."""
    while True:
        try:
            async with await trio.open_tcp_stream(host, port) as stream:
                await kind(stream)
        except (OSError, trio.BrokenResourceError):
            pass
        await trio.sleep(1)


async def attackers(host: str, port: int) -> None:
    """All of them, until this process is ended."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # also where this runs with real-time priority
    os.nice(19)
    async with trio.open_nursery() as nursery:
        for number in range(ATTACKERS):
            nursery.start_soon(attack, host, port, ATTACKS[number % len(ATTACKS)])
        print("attacking:0", flush=True)


# -- the paying callers ------------------------------------------------------------------------------------------------


def paying(request: bytes) -> bytes:
    """A request with the key."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {KEY}\r\n"
        f"content-length: {len(request)}\r\n\r\n"
    )
    return head.encode() + request


async def paying_stream(port: int, seconds: float) -> float:
    """One stream after the other; the 99th percentile of how late their tokens come."""
    late: list[float] = []
    until = perf_counter() + seconds
    while perf_counter() < until:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            stream.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            await stream.send_all(paying(CHAT % b',"stream":true'))
            seen = b""
            while not seen.endswith(b"0\r\n\r\n"):
                piece, extra, _, _ = await stream.socket.recvmsg(65536, 64)
                assert piece, "a paying stream was cut"
                arrived = next((at * 10**9 + ns for _, _, data in extra for at, ns in TIMESTAMP.iter_unpack(data)), 0)
                late += [(arrived - int(sent)) / 1e9 for sent in STAMP.findall(piece)]
                seen = seen[-8:] + piece
    assert late, "no token says when it was sent"
    return quantiles(late, n=100)[-1]


async def newcomer(port: int, took: list[float]) -> None:
    """A caller with a new connection every half second: it must be let in."""
    while True:
        began = perf_counter()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            request = f"GET /v1/models HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {KEY}\r\n\r\n"
            await stream.send_all(request.encode())
            answer = await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        took.append(perf_counter() - began)
        await trio.sleep(0.5)


class Seen(NamedTuple):
    """The worst stream's lateness, the slowest newcomer, the most memory in bytes, the daemon's share of a core."""

    late: float
    newcomer: float
    resident: int
    cpu: float


async def serve_the_paying(system: System, seconds: float) -> Seen:
    """Streams, newcomers and the daemon's memory for so long."""
    cpu, began = system.cpu(), perf_counter()
    worst: list[float] = []
    took: list[float] = []
    resident = 0

    async def one() -> None:
        worst.append(await paying_stream(system.port, seconds))

    async def watch() -> None:
        nonlocal resident
        while True:
            resident = max(resident, system.resident())
            await trio.sleep(0.1)

    async with trio.open_nursery() as others:
        others.start_soon(watch)
        others.start_soon(newcomer, system.port, took)
        async with trio.open_nursery() as nursery:
            for _ in range(STREAMS):
                nursery.start_soon(one)
        others.cancel_scope.cancel()
    return Seen(max(worst), max(took), resident, (system.cpu() - cpu) / (perf_counter() - began))


def other_address() -> str:
    """An address of this machine that is not loopback; empty if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; the kernel chooses the address it would send from
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def under_attack(system: System, host: str, seconds: float) -> Seen:
    """The same while `ATTACKERS` come from ``host``."""
    code = f"import sys, trio; from bench.attack import attackers; trio.run(attackers, {host!r}, {system.port})"
    with process(1, "-c", code):
        return trio.run(serve_the_paying, system, seconds)


def main() -> int:
    """Print what was seen; 1 if a paying stream noticed or memory grew beyond `RESIDENT_MB`."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    os.environ["BENCH_KEY"] = KEY
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *sys.path])
    missed = False
    cores = sorted(os.sched_getaffinity(0))
    print(f"{'':24} {'token late, p99':>16} {'new caller':>12} {'resident':>12} {'core':>6}")
    with process(1, str(HERE / "_upstream.py"), "100", str(GAP_SECONDS), "stamped") as upstream:
        with system_under_test(KEYS + CONFIG.format(port=upstream.port)) as system:
            rows = [("no attack", "")] + [
                (f"attack from {each}", each) for each in ("127.0.0.1", other_address()) if each
            ]
            for what, host in rows:
                os.sched_setaffinity(0, set(cores[-1:]))
                seen = under_attack(system, host, seconds) if host else trio.run(serve_the_paying, system, seconds)
                os.sched_setaffinity(0, set(cores))
                print(
                    f"{what:24} {seen.late * 1e3:13.1f} ms {seen.newcomer * 1e3:9.1f} ms "
                    f"{seen.resident / 2**20:8.1f} MiB {seen.cpu:6.0%}",
                    flush=True,
                )
                missed |= seen.late > LATE_SECONDS or seen.resident > RESIDENT_MB * 2**20
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
