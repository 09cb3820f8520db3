"""The daemon as a process of its own, and a fake vendor for it that does what the last message says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from llm_actors.run import Run
from llm_protocol.content import ToolCall
from llm_protocol.embedding import Embedding
from llm_protocol.events import (
    Embedded,
    Finished,
    ItemDone,
    ItemStarted,
    Started,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import ChatRequest, EmbeddingRequest
from llm_protocol.response import FinishReason, Usage
from support.server import OpenServer, add_text, begin_text, end_text

KEY = "sk-test-0123456789abcdef"
ARGUMENTS = '{"city":"Paris"}'


async def vendor(run: Run) -> None:
    """Do what the last message says."""
    request = run.request
    if isinstance(request, EmbeddingRequest):
        _embed(run, request)
        return
    assert isinstance(request, ChatRequest)
    last = request.messages[-1]
    text = last.text or "".join(getattr(part, "text", None) or "" for part in last.content)
    verb, _, rest = text.partition(" ")
    if verb == "call":
        _call(run, rest)
    elif verb == "fail":
        run.fail(Failure(kind=FailureKind(rest.strip()), message="as asked for", retry_after=1.0))
    else:
        await _speak(run, rest, pause=0.05 if verb == "slowly" else 0.0)
        if verb == "hang":
            add_text(run, "…")
            await trio.sleep_forever()
        elif verb == "cut":
            end_text(run, FinishReason.LENGTH)
        elif verb == "break":
            run.fail(Failure(kind=FailureKind.TRUNCATED, message="as asked for", partial=True))
        else:
            end_text(run)


def _embed(run: Run, request: EmbeddingRequest) -> None:
    run.log.append(Started(model="fake-1"))
    run.log.append(Embedded(tuple(Embedding.of((float(len(text)), 0.5)) for text in request.inputs)))
    run.log.append(UsageReported(Usage(input_tokens=3)))
    run.finish(Finished(reason=FinishReason.STOP), run.folded())


async def _speak(run: Run, text: str, pause: float) -> None:
    begin_text(run)
    for word in text.replace(" ", "\0 ").split("\0"):
        add_text(run, word)
        await trio.sleep(pause)


def _call(run: Run, name: str) -> None:
    run.log.append(Started(model="fake-1"))
    run.log.append(ItemStarted(index=0, kind="tool_call", id="call_1", name=name))
    for piece in ARGUMENTS[:5], ARGUMENTS[5:]:
        run.log.append(ToolCallDelta(0, piece))
    run.log.append(ItemDone(index=0, part=ToolCall(id="call_1", name=name, arguments=ARGUMENTS)))
    run.log.append(UsageReported(Usage(input_tokens=3, output_tokens=2)))
    end = Finished(reason=FinishReason.TOOL_CALLS)
    run.finish(end, run.folded())


@asynccontextmanager
async def daemon(upstream: OpenServer, folder: Path, more: str = "") -> AsyncIterator[str]:
    """The daemon as a process of its own, with the upstream as its one provider; its URL. ``more`` is added to its
    configuration.
    """
    config = folder / "config.toml"
    config.write_text(f"""
        [server]
        port = 0
        [keys.me]
        secret = "env:SDK_TEST_KEY"
        [providers.fake]
        kind = "openai_compatible"
        base_url = "{upstream.address.url}/v1"
        models = ["fake-1"]
        {more}
    """)
    command = [sys.executable, "-m", "llm_runtime.cli", "serve", "--config", str(config)]
    environ = {**os.environ, "SDK_TEST_KEY": KEY, "PYTHONPATH": os.pathsep.join(sys.path)}
    errors = folder / "stderr"
    with errors.open("wb") as stderr:
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=stderr, env=environ)
        try:
            with trio.fail_after(120):
                line = b""
                while not line.endswith(b"\n"):
                    assert process.stdout is not None
                    got = await process.stdout.receive_some()
                    assert got, errors.read_text()
                    line += got
            yield line.decode().removeprefix("ready ").strip()
            process.terminate()
            with trio.fail_after(120):
                assert await process.wait() == 0
        finally:
            process.kill()
            with trio.move_on_after(5, shield=True):
                await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()
    assert "Traceback" not in errors.read_text()
    assert KEY not in errors.read_text()
