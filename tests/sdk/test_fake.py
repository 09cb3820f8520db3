"""The vendors' official SDKs, unmodified, against the fake provider: it is as faithful as they can tell."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import trio

from llm_protocol.requests import LLMProvider
from llm_runtime.fake import FakeProvider, FakeToolCall, ScriptRule
from llm_runtime.fake.answers import picture
from support.sdk import ROOT, SDKS, sdk_python

SCRIPTS = Path(__file__).with_name("scripts")
KEY = "sk-test-0123456789abcdef"
RULES = (
    ScriptRule(contains="weather", tool_calls=(FakeToolCall(name="weather"),)),
    ScriptRule(contains="reason", reasoning="Let me think."),
)


@pytest.mark.parametrize("sdk", SDKS)
async def test_the_sdk_finds_what_it_knows(sdk: str) -> None:
    """All at the same address: the fake tells them apart by path and header."""
    python = await trio.to_thread.run_sync(sdk_python, sdk, SDKS[sdk])
    async with FakeProvider(*RULES, key=KEY) as fake:
        png = base64.b64encode(picture("")).decode()
        with trio.fail_after(60):
            done = await trio.run_process(
                [python, str(SCRIPTS / f"fake_{sdk}.py"), fake.url, KEY, png],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=ROOT / "tests",
            )
        assert done.stdout == b"passed\n", done.stderr.decode()
        assert {seen.kind for seen in fake.journal.requests} == {LLMProvider(sdk)}
