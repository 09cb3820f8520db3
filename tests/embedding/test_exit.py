"""How a program ends that embeds the runtime."""

from __future__ import annotations

import sys

import trio

HANGING_LOOKUP = """
import socket, threading, time, trio, llm_runtime
from llm_runtime.config import Config, Provider
from llm_protocol.requests import LLMProvider

def hang(*_, **__):
    asked.set()
    time.sleep(60)

asked = threading.Event()
socket.getaddrinfo = hang
config = Config(providers={"a": Provider(kind=LLMProvider.OPENAI_COMPATIBLE, base_url="http://a.test/v1")})

async def main():
    async with llm_runtime.open_runtime(config):
        await trio.to_thread.run_sync(asked.wait)
    print("left")

trio.run(main)
"""


async def test_a_name_lookup_that_hangs_does_not_keep_or_crash_a_program_that_ends() -> None:
    """It cannot be cancelled; its thread is left to the end of the process."""
    with trio.fail_after(20):
        done = await trio.run_process([sys.executable, "-c", HANGING_LOOKUP], capture_stdout=True)
    assert done.stdout == b"left\n"
