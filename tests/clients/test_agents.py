"""Agents that edit files, go on with a conversation, are interrupted, wait, and fail, through the daemon."""

from __future__ import annotations

import base64
import os
import signal
from pathlib import Path

import pytest

from llm_protocol.failures import FailureKind
from support.agent_model import CONTENT, SILENT_SECONDS
from support.agents import AGENTS
from support.client_lab import CHOSEN, FULL, TURN_SECONDS, lab

CALLS = {FailureKind.RATE_LIMITED: 3, FailureKind.CONTEXT_LENGTH: 1, FailureKind.BAD_REQUEST: 1}
"""Calls that the daemon makes for one request that fails so."""

EVERY_AGENT = pytest.mark.parametrize("agent", AGENTS)
VENDOR = pytest.mark.parametrize("vendor", CHOSEN)

pytestmark = pytest.mark.time_limit(900)


@EVERY_AGENT
@VENDOR
async def test_it_edits_a_file_and_goes_on_with_the_conversation(agent: str, vendor: str, tmp_path: Path) -> None:
    async with lab(agent, vendor, tmp_path) as at:
        file = at.place.work / "notes.txt"
        turn = await at.turn(f"Please do this: [[edit {file}]]")
        assert file.exists(), turn.said
        assert file.read_bytes() == CONTENT.encode()
        assert turn.code == 0, turn.said
        if at.agent.keeps:
            turn = await at.turn("And now: [[recall it]]", again=True)
            assert "recalled: edit recall" in turn.said


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj
trailer<</Root 1 0 R>>
%%EOF
"""


@pytest.mark.parametrize("vendor", [each for each in CHOSEN if each != "cohere"])
@pytest.mark.parametrize(("name", "content", "kind"), [("a.png", PNG, "image/"), ("a.pdf", PDF, "application/pdf")])
async def test_claude_code_reads_what_is_no_text(
    vendor: str, name: str, content: bytes, kind: str, tmp_path: Path
) -> None:
    """Pictures and PDFs reach every vendor that sees, in the form that it takes. A vendor without PDFs is named."""
    async with lab("claude-code", vendor, tmp_path) as at:
        file = at.place.work / name
        file.write_bytes(content)
        turn = await at.turn(f"Please do this: [[read {file}]]")
        if (name, vendor) == ("a.pdf", "cerebras"):
            assert "Cerebras does not accept PDF documents" in turn.said
            return
        assert turn.code == 0, turn.said
        assert f"seen: {kind}" in turn.said


@EVERY_AGENT
@VENDOR
async def test_an_interrupted_turn_ends_at_the_vendor(agent: str, vendor: str, tmp_path: Path) -> None:
    async with lab(agent, vendor, tmp_path) as at:
        engine = at.upstream.engine
        async with at.begun("Please do this: [[hang now]]") as process:
            await engine.until(lambda: engine.open_runs > 0 and at.asked("hang") > 0, seconds=TURN_SECONDS)
            os.killpg(process.pid, signal.SIGINT)
            await engine.until(lambda: engine.open_runs == 0, seconds=15)


@EVERY_AGENT
@VENDOR
@pytest.mark.parametrize("verb", ["silent", "pause"])
@pytest.mark.skipif(not FULL, reason=f"takes {SILENT_SECONDS:.0f} s; in the full form only")
async def test_forty_seconds_of_silence_change_nothing(agent: str, vendor: str, verb: str, tmp_path: Path) -> None:
    async with lab(agent, vendor, tmp_path) as at:
        turn = await at.turn(f"Please do this: [[{verb} now]]")
        assert "after" in turn.said
        assert turn.code == 0
        assert at.asked(verb) <= 1, "nobody lost patience and asked again"


@EVERY_AGENT
@VENDOR
@pytest.mark.parametrize("kind", CALLS)
async def test_a_failure_is_told_and_asked_for_only_so_often(
    agent: str, vendor: str, kind: FailureKind, tmp_path: Path
) -> None:
    if kind.value in AGENTS[agent].endless:
        pytest.skip("it repeats this for minutes")
    async with lab(agent, vendor, tmp_path) as at:
        turn = await at.turn(f"Please do this: [[fail {kind.value}]]")
        assert turn.code != 0 or "as asked for" in turn.said, turn.said
        own = at.agent.variants if kind is FailureKind.BAD_REQUEST else at.agent.tries
        assert at.asked("fail") <= CALLS[kind] * own


@EVERY_AGENT
@VENDOR
async def test_a_key_of_ours_that_the_vendor_refuses_is_told(agent: str, vendor: str, tmp_path: Path) -> None:
    if "auth" in AGENTS[agent].endless:
        pytest.skip("it repeats this for minutes")
    async with lab(agent, vendor, tmp_path) as at:
        at = at._replace(place=at.place._replace(model=at.locked_model))
        turn = await at.turn("Please do this: [[say hi]]")
        assert turn.code != 0 or "API key" in turn.said, turn.said
        assert at.asked("say") == 0
        often = at.agent.tries if agent == "codex" else 3  # the turn, and what it asks besides, once each
        assert len(at.locked.engine.refusals) <= often
