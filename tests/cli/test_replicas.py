"""Several daemons with one configuration, one Redis and one vendor."""

import json
from collections import Counter
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import trio

from llm_actors.transport import HttpRequest, Transport, parse_url
from support import commands
from support.peer import Call, Peer
from support.redis import redis
from support.upstream import JSON, whole

REPLICAS = 4
PER_MINUTE = 240
BURST = 0.04
SECONDS = 31.0
"""Enough for all of a window, of which one second takes a twenty-fifth."""


def config(folder: Path, peer: Peer, port: int) -> str:
    file = folder / "c.toml"
    file.write_text(
        "[server]\nport = 0\ndrain_s = 0\n"
        # On a busy machine an answer may take its time, and a replica that does not wait for it goes by itself.
        f'[redis]\nurl = "redis://127.0.0.1:{port}/0"\ntimeout_s = 2\n'
        f'[providers.p]\nkind = "openai_compatible"\nbase_url = "{peer.url}/v1"\nmodels = ["m"]\n'
        f"limits = {{ requests_per_minute = {PER_MINUTE}, burst = {BURST} }}\n"
    )
    return str(file)


async def test_four_replicas_keep_one_limit(tmp_path: Path) -> None:
    """However they are pressed, what reaches the vendor is the limit and at most one request more per replica;
    and all of the limit is used, whoever of them is asked.

    Who is first in a second takes what it can of that second's burst. The draw decides, anew each second, so that in
    twenty-five of them each gets its part (but in one of a thousand runs).
    """
    seen: list[float] = []

    async def answer(call: Call) -> None:
        seen.append(trio.current_time())
        body = whole()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {JSON['content-type']}\r\ncontent-length: {len(body)}\r\n\r\n"
        await call.send(head.encode() + body)

    answered: Counter[str] = Counter()

    async def ask(url: str, transport: Transport) -> None:
        body = json.dumps({"model": "p/m", "messages": [{"role": "user", "content": "hi"}]}).encode()
        request = HttpRequest("POST", parse_url(url)[0], "/v1/chat/completions", JSON, body)
        while True:
            async with transport.send(request) as response:
                while await response.receive():
                    pass
                if response.status == 429:  # there is nothing left for longer than `wait_s`
                    headers = dict(response.headers)
                    assert headers["x-llm-runtime-limit-owner"] == "provider"
                    assert 30 < int(headers["retry-after"]) <= 62
                    return
                assert response.status == 200
            answered[url] += 1

    async with AsyncExitStack() as stack:
        server = stack.enter_context(redis())
        peer = await stack.enter_async_context(Peer(answer))
        file = config(tmp_path, peer, server.port)
        urls = []
        for _ in range(REPLICAS):
            process = await stack.enter_async_context(commands.running("serve", "--config", file, seconds=90))
            urls.append((await commands.line(process.stdout)).removeprefix("ready "))
        transport = await stack.enter_async_context(aclosing(Transport()))
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + SECONDS
            for url in urls[1:]:  # one is not asked: its share is not lost
                for _ in range(4):
                    nursery.start_soon(ask, url, transport)

    assert PER_MINUTE <= len(seen) <= PER_MINUTE + REPLICAS
    assert min(answered[url] for url in urls[1:]) >= 0.2 * len(seen) / (REPLICAS - 1)
