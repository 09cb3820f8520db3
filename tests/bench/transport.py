"""The CPU time of the transport, compared with httpx2's AsyncClient, both on Trio, with the same bare server.

    python tests/bench/transport.py
    python tests/bench/transport.py --proxy     # both through the same proxy (pproxy), and the transport without one

There are two numbers: for a plain request (32 in flight, idle connections reused) and for a chunk of a stream (50
streams at once, each chunk arriving alone). Rounds alternate between the two clients; the ratio is that of the medians.
The server is a process of its own, on another core if there is one. Its CPU time is not counted.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import trio

from llm_actors.transport import HttpRequest, Proxy, Transport, parse_url

ROUNDS = 7
PLAIN_REQUESTS, IN_FLIGHT = 1600, 32
STREAMS, CHUNKS, CHUNK_GAP_SECONDS = 50, 100, 0.001
HEADERS = {"content-type": "application/json", "authorization": "Bearer sk-bench"}
BODY = b'{"model":"m"}'
ANSWER = b'{"id":"x","choices":[{"message":{"role":"assistant","content":"hello"}}]}'
CHUNK = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":" tok"}}]}\n\n'

Call = Callable[[str], Awaitable[None]]


async def serve() -> None:
    """The least that can answer: no parsing beyond what tells the two paths apart."""
    plain = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK)

    async def answer(stream: trio.SocketStream) -> None:
        streamed = False
        while received := await stream.receive_some(65536):
            if b"POST " in received:
                streamed = b"/stream" in received
            if BODY not in received:
                continue  # a head in a packet of its own
            if not streamed:
                await stream.send_all(plain)
                continue
            await stream.send_all(head)
            for _ in range(CHUNKS):
                await stream.send_all(chunk)
                await trio.sleep(CHUNK_GAP_SECONDS)
            await stream.send_all(b"0\r\n\r\n")

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listener.socket.getsockname()[1], flush=True)
    await trio.serve_listeners(answer, [listener])


async def with_ours(url: str, measure: Callable[[Call], Awaitable[float]], proxy: int | None = None) -> float:
    transport = Transport(proxy=None if proxy is None else Proxy("http", "127.0.0.1", proxy))
    origin, _ = parse_url(url)

    async def call(target: str) -> None:
        request = HttpRequest("POST", origin, target, HEADERS, BODY)
        async with transport.send(request) as response:
            while await response.receive():
                pass

    try:
        return await measure(call)
    finally:
        await transport.aclose()


async def with_httpx2(url: str, measure: Callable[[Call], Awaitable[float]], proxy: int | None = None) -> float:
    import httpx2  # a dependency of the benchmark only

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    through = None if proxy is None else f"http://127.0.0.1:{proxy}"
    async with httpx2.AsyncClient(base_url=url, limits=limits, trust_env=False, timeout=60, proxy=through) as client:

        async def call(target: str) -> None:
            async with client.stream("POST", target, headers=HEADERS, content=BODY) as response:
                async for _ in response.aiter_raw():
                    pass

        return await measure(call)


async def cpu_per_unit(call: Call, *, target: str, workers: int, calls_each: int, units: int) -> float:
    """Seconds of CPU of this process per unit, connections already open."""

    async def worker(calls: int) -> None:
        for _ in range(calls):
            await call(target)

    async def run(calls: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(workers):
                nursery.start_soon(worker, calls)

    await run(1)
    start = time.process_time()
    await run(calls_each)
    return (time.process_time() - start) / units


PLAIN = partial(
    cpu_per_unit, target="/plain", workers=IN_FLIGHT, calls_each=PLAIN_REQUESTS // IN_FLIGHT, units=PLAIN_REQUESTS
)
STREAMED = partial(cpu_per_unit, target="/stream", workers=STREAMS, calls_each=1, units=STREAMS * CHUNKS)


def compare(url: str, name: str, measure: Callable[[Call], Awaitable[float]], proxy: int | None = None) -> None:
    spent: dict[str, list[float]] = {"ours": [], "httpx2": [], "ours without": []}
    for _ in range(ROUNDS):
        spent["ours"].append(trio.run(with_ours, url, measure, proxy))
        spent["httpx2"].append(trio.run(with_httpx2, url, measure, proxy))
        if proxy is not None:
            spent["ours without"].append(trio.run(with_ours, url, measure))
    ours, theirs = (statistics.median(spent[who]) * 1e6 for who in ("ours", "httpx2"))
    line = f"{name:<22} ours {ours:6.1f} us   httpx2 {theirs:6.1f} us   ratio {ours / theirs:.2f}"
    if proxy is not None:
        line += f"   ours without the proxy {statistics.median(spent['ours without']) * 1e6:6.1f} us"
    print(line)


@contextmanager
def pproxy() -> Iterator[int]:
    """A proxy in a process of its own; its port."""
    command = [sys.executable, "-W", "ignore", "-u", "-m", "pproxy", "-l", "http://127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        found = None
        while found is None:
            found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        yield int(found[1])
    finally:
        process.kill()
        process.wait()


def main() -> int:
    cores = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        if len(cores) > 1:
            os.sched_setaffinity(server.pid, cores[:1])
            os.sched_setaffinity(0, cores[1:2])
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        compare(url, "CPU per plain request", PLAIN)
        compare(url, "CPU per streamed chunk", STREAMED)
        if "--proxy" in sys.argv:
            with pproxy() as port:
                compare(url, "request, by proxy", PLAIN, port)
                compare(url, "chunk, by proxy", STREAMED, port)
    finally:
        os.sched_setaffinity(0, cores)
        server.kill()
        server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(trio.run(serve) if "--serve" in sys.argv else main())
