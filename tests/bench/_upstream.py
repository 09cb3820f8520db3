"""The fake provider of the benchmarks: as little work per response as possible, in a process of its own.

It sends a complete chat completion, or streams ``CHUNKS`` chunks, one write each, ``GAP`` seconds apart (both are
arguments). With two more, a median and a 99th percentile in seconds, complete responses take a log-normal time. With
the word ``stamped``, each chunk contains when it was sent, in nanoseconds since the epoch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from math import log
from random import Random

import trio

WHOLE = (
    b'{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Hello there, how are you?"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11}}'
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(WHOLE), WHOLE)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
START = b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
DELTA = START + b'{"content":"%b"},"finish_reason":null}]}\n\n'
END = (
    START
    + b'{},"finish_reason":"stop"}]}\n\n'
    + b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
    + b'"usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11}}\n\ndata: [DONE]\n\n'
)

P99_DEVIATIONS = 2.326
"""Standard deviations between the median and the 99th percentile of a normal distribution."""


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


WORD = _chunk(DELTA % b" word")


def _word() -> bytes:
    return WORD


def _stamp() -> bytes:
    return _chunk(DELTA % b"<%d>" % time.time_ns())


async def _serve(
    chunks: int, gap: float, late: Callable[[], float] | None, delta: Callable[[], bytes], stream: trio.SocketStream
) -> None:
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            data = await stream.receive_some(65536)
            if not data:
                return
            buffer += data
        head, _, rest = buffer.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(rest) < length:
            rest += await stream.receive_some(65536)
        body, buffer = rest[:length], rest[length:]
        if b'"stream":true' not in body:
            if late is not None:
                await trio.sleep(late())
            await stream.send_all(ANSWER)
            continue
        await stream.send_all(HEAD)
        for _ in range(chunks):
            await stream.send_all(delta())
            await trio.sleep(gap)
        await stream.send_all(_chunk(END) + b"0\r\n\r\n")


async def main() -> None:
    stamped = "stamped" in sys.argv
    chunks, gap, *spread = (float(each) for each in sys.argv[1:] if each != "stamped")
    late = None
    if spread:
        median, p99 = spread
        late = partial(Random(1).lognormvariate, log(median), log(p99 / median) / P99_DEVIATIONS)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=4096)
    print(listener.socket.getsockname()[1], flush=True)
    await trio.serve_listeners(partial(_guarded, int(chunks), gap, late, _stamp if stamped else _word), [listener])


async def _guarded(
    chunks: int, gap: float, late: Callable[[], float] | None, delta: Callable[[], bytes], stream: trio.SocketStream
) -> None:
    try:
        await _serve(chunks, gap, late, delta, stream)
    except trio.BrokenResourceError:
        return


if __name__ == "__main__":
    trio.run(main)
