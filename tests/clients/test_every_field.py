"""Every parameter of every SDK, and every field of its answers, through the daemon as straight to its vendor.

The vendor is a capturing fake. Each SDK asks it twice in the same words, once directly and once through the daemon.
What arrives there the first time arrives the second time; what the SDK reads of the answer the first time it reads the
second time. What is refused or stays here is explained, once, for this test and bin/vendor-drift alike.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from support.drift import OTHER_NAMES, STREAM_OPTIONS, frame_of, lost_in_stream, missing_fields, real_sample, streams_of
from support.peer import Call, Peer, Seen, chunked, reply
from support.same_wire import BESIDE, KINDS, SAMPLES, SURFACES, cut, daemon_before, unexplained
from support.sdk import ROOT, SDKS, sdk_python
from support.upstream import JSON

SCRIPT = Path(__file__).parent.with_name("sdk") / "scripts" / "every_field.py"
KEY = "sk-test-0123456789abcdef"
SSE = {"content-type": "text/event-stream"}
HI = {"messages": [{"role": "user", "content": "hi"}]}
LEAST: dict[str, dict[str, Any]] = {
    "openai chat": HI,
    "openai responses": {"input": "hi"},
    "openai embeddings": {"input": "hi"},
    "openai images": {"prompt": "hi"},
    "anthropic messages": {**HI, "max_tokens": 9},
    "anthropic beta messages": {**HI, "max_tokens": 9},
    "gemini generationConfig": {},
    "cohere chat": HI,
    "cohere embed": {"texts": ["hi"], "input_type": "search_query", "embedding_types": ["float"]},
    "cerebras chat": HI,
}
"""What each endpoint must be asked with."""
CONFIG = "gemini generationConfig"


class Vendor:
    """What the fake vendor answers now."""

    def __init__(self) -> None:
        self.whole: Any = {}
        self.stream: list[Any] = []

    async def __call__(self, call: Call) -> None:
        assert call.request is not None
        is_stream = json.loads(call.request.body or b"{}").get("stream") or "stream" in call.request.target
        if is_stream:
            await chunked(b"".join(map(frame_of, self.stream)), headers=SSE)(call)
        else:
            await reply(json.dumps(self.whole).encode(), headers=JSON)(call)


class Twice(NamedTuple):
    """One request, directly and through the daemon: what arrived, and what came back."""

    sent: tuple[Seen | None, Seen | None]
    told: tuple[dict[str, Any], dict[str, Any]]


class Sdk:
    """The SDK at work, in a process of its own."""

    def __init__(self, process: trio.Process, peer: Peer) -> None:
        self._process = process
        self._peer = peer
        self._read = b""

    async def ask(self, endpoint: str, fields: dict[str, Any], *, stream: bool = False) -> Twice:
        """The same request twice."""
        assert self._process.stdin is not None
        before = len(self._peer.requests)
        job = {"endpoint": endpoint, "fields": {"model": "m", **fields}, "stream": stream}
        await self._process.stdin.send_all(json.dumps(job).encode() + b"\n")
        told = json.loads(await self._line())
        if fields.get("background"):  # the daemon has answered, and asks behind it
            await self._peer.until(lambda: len(self._peer.requests) == before + 2)
        seen = [*self._peer.requests[before:], None, None]
        if "error" in told[0] and seen[0] is None:
            seen.insert(0, None)
        return Twice((seen[0], seen[1]), (told[0], told[1]))

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._read:
            piece = await self._process.stdout.receive_some()
            assert piece, "the SDK's process ended"
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return line


@asynccontextmanager
async def working(sdk: str, vendor: Vendor) -> AsyncIterator[Sdk]:
    """An SDK before its vendor, and before a daemon that has that vendor."""
    python = await trio.to_thread.run_sync(sdk_python, sdk, SDKS[sdk])
    async with Peer(vendor, responses=True) as peer, daemon_before(peer, sdk) as url:
        command = [python, str(SCRIPT), peer.url, url, KEY, sdk]
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT / "tests"
        )
        try:
            with trio.fail_after(100):
                yield Sdk(process, peer)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                for pipe in (process.stdin, process.stdout):
                    assert pipe is not None
                    await pipe.aclose()


def parameters_of(seen: Seen | None, name: str) -> set[str]:
    """The names of what a request says: in its body, and in headers."""
    if seen is None:
        return set()
    body = json.loads(seen.body)
    return {
        *(body.get("generationConfig", {}) if name == CONFIG else body),
        *(f"header {each}" for each in seen.headers),
    }


def lost_of(name: str, parameter: str, asked: Twice, usual: Twice) -> Iterator[tuple[str, str]]:
    """What the SDK said to its vendor because of ``parameter``, and did not through the daemon."""
    if "error" in asked.told[1]:
        yield f"{name} parameter {parameter}", asked.told[1]["error"]
        return
    said, arrived = (parameters_of(each, name) for each in asked.sent)
    for gone in said - arrived - parameters_of(usual.sent[0], name):
        if OTHER_NAMES.get(gone) not in arrived:
            yield f"{name} parameter {parameter}", f"{gone} does not arrive"


async def lost_parameters(name: str, sdk: Sdk, usual: Twice) -> dict[str, str]:
    """What arrives straight from the SDK, and not through the daemon."""
    lost: dict[str, str] = {}
    said = 0
    for parameter, value in SURFACES["parameters"][name].items():
        if parameter in LEAST[name] or parameter in ("model", "stream"):
            continue
        asked = await sdk.ask(name, {**LEAST[name], parameter: value, **BESIDE.get((name, parameter), {})})
        if asked.sent[0] is not None:  # else the SDK itself refuses it
            said += 1
            lost |= dict(lost_of(name, parameter, asked, usual))
    assert said, "the SDK says something"
    return lost


async def lost_in_streams(name: str, sdk: Sdk, vendor: Vendor) -> dict[str, str]:
    """What is in a stream of its vendor, and not in the daemon's."""
    sample = SAMPLES[name]
    known = SURFACES["events"].get(sample)
    lost: dict[str, str] = {}
    for vendor.stream, probes in streams_of(sample, known, SURFACES["answers"]) if known else ():
        asked = await sdk.ask(name, {**LEAST[name], **STREAM_OPTIONS.get(name, {})}, stream=True)
        assert all("told" in each for each in asked.told), asked.told
        straight, through = (each["told"] for each in asked.told)
        read = dict(lost_in_stream(sample, probes, straight))  # what the SDK itself does not read
        lost |= {each: what for each, what in lost_in_stream(sample, probes, through) if each not in read}
    return lost


@pytest.mark.time_limit(240)
@pytest.mark.parametrize("sdk", SDKS)
async def test_every_parameter_and_every_field(sdk: str) -> None:
    vendor = Vendor()
    lost: dict[str, str] = {}
    async with working(sdk, vendor) as asker:
        for name in (name for name, kind in KINDS.items() if kind == sdk):
            vendor.whole = real_sample(SAMPLES[name], SURFACES["answers"][SAMPLES[name]])
            usual = await asker.ask(name, LEAST[name])
            assert all("told" in each for each in usual.told), usual.told
            gone = missing_fields(usual.told[0]["told"], usual.told[1]["told"])
            lost |= {f"{SAMPLES[name]} answer {each}": "does not come back" for each in gone}
            lost |= await lost_in_streams(name, asker, vendor)
            vendor.whole = cut(vendor.whole)
            lost |= await lost_parameters(name, asker, usual)
    assert unexplained(lost) == {}
