"""The runtime as a block of somebody's program: what goes in, what comes out, what is left."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import trio

import llm_runtime
from llm_runtime import Config, LLMProvider, Provider, Secret, open_runtime
from llm_runtime.fake import FakeProvider, Fault, ScriptRule


def config(fake: FakeProvider) -> Config:
    kind = LLMProvider.ANTHROPIC
    return Config(
        providers={"a": Provider(kind=kind, base_url=fake.base_url(kind), api_key=Secret("k"), models=("m",))}
    )


async def test_a_failed_request_is_caught_outside_of_the_block() -> None:
    """As itself: around a nursery it would have come in a group, which ``except LLMClientError`` does not catch."""
    with pytest.raises(llm_runtime.LLMClientError, match="no provider is configured"):
        async with open_runtime(Config()) as rt:
            await rt.chat("Say hello.")


async def test_cancelling_the_nursery_around_a_runtime_ends_the_call_at_the_vendor() -> None:
    async with FakeProvider(ScriptRule(fault=Fault.STALL)) as fake:

        async def agent() -> None:
            async with open_runtime(config(fake)) as rt, rt.stream("Tell me a long story.") as answer:
                async for _ in answer.text():
                    nursery.cancel_scope.cancel()

        with trio.fail_after(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(agent)
            await fake.journal.until(lambda journal: journal.left == 1)


def test_a_key_that_is_no_secret_is_refused_without_being_said() -> None:
    with pytest.raises(TypeError, match=r"^api_key must be a Secret: write api_key=Secret\(...\)$"):
        Provider(kind=LLMProvider.OPENAI, api_key="sk-CANARY")  # type: ignore[arg-type]


INTERRUPTED = """
import signal, trio, llm_runtime

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored

async def main():
    async with llm_runtime.open_runtime(llm_runtime.Config()):
        print("open", flush=True)
        await trio.sleep_forever()

try:
    trio.run(main)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_comes_out_as_itself() -> None:
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == (b"interrupted\n", 0)
