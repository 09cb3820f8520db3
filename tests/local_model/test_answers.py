"""The real model behind the real runtime: it streams, and its process may die without taking anything along."""

import os
import signal
from pathlib import Path

import pytest
import trio

import llm_runtime
from llm_protocol.errors import NetworkError
from llm_protocol.requests import LLMProvider
from llm_runtime.config import Config, Provider
from llm_runtime.local_model import is_installed

pytestmark = pytest.mark.skipif(not is_installed(), reason="the local model is not installed")

LOCAL = Config(providers={"local": Provider(kind=LLMProvider.LOCAL, models=("smollm2",))})


def model_process() -> int:
    """The process id of the model's process, which is our child."""
    children = {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}
    [found] = [pid for pid in children if b"local_model" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return int(found)


async def text_until_killed(runtime: llm_runtime.Runtime, process: int) -> None:
    async with runtime.stream("Count from one to five hundred.", max_output_tokens=2000) as answer:
        async for _ in answer.text():
            os.kill(process, signal.SIGKILL)


async def next_answer(runtime: llm_runtime.Runtime) -> llm_runtime.LLMResponse:
    """The next answer; a request that is there before the supervisor has noticed the crash may be refused."""
    while True:
        try:
            return await runtime.chat("Say hello.", max_output_tokens=8)
        except NetworkError:
            await trio.lowlevel.checkpoint()


async def test_a_killed_model_ends_its_answer_and_serves_the_next() -> None:
    """The answer in progress fails with the text so far; the supervisor starts another process; the next one works."""
    with trio.fail_after(60):
        async with llm_runtime.open_runtime(LOCAL) as runtime:
            first = model_process()
            with pytest.raises(llm_runtime.LLMClientError) as caught:
                await text_until_killed(runtime, first)
            assert caught.value.partial
            assert caught.value.partial.content
            response = await next_answer(runtime)
            assert response.content
            assert (response.provider, response.model) == ("local", "smollm2")
            assert model_process() != first


async def test_leaving_a_stream_stops_the_model() -> None:
    """With one slot's worth of work abandoned, all slots are free again at once."""
    with trio.fail_after(60):
        async with llm_runtime.open_runtime(LOCAL) as runtime:
            for _ in range(8):
                async with runtime.stream("Tell a very long story.", max_output_tokens=4000) as answer:
                    async for _ in answer.text():
                        break
            assert (await runtime.chat("Say hello.", max_output_tokens=8)).content
