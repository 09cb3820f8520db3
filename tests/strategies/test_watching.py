"""``llm-runtime ask --route``: several models at work, in a terminal and in a file."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.events import MemberDelta, MemberDone, MemberFailed, MemberStarted
from llm_protocol.failures import Failure, FailureKind
from llm_runtime.cli.member_view import LABEL_COLUMNS, NARROWEST, MemberView, wrapped
from support import commands
from support.attempts import status
from support.panels import saying
from support.peer import Peer

LONG = ("The capital of France is Paris, " * 6).strip()


@asynccontextmanager
async def configured(folder: Path) -> AsyncIterator[str]:
    """A configuration with the route ``panel``: two members answer, one fails."""
    async with (
        Peer(saying(LONG[:50], LONG[50:])) as a,
        Peer(saying("Lyon\n\nor Paris", late=0.1)) as b,
        Peer(status(401)) as c,
    ):
        providers = "".join(
            f'[providers.{name}]\nkind = "openai_compatible"\nbase_url = "{peer.url}/v1"\nmodels = ["m-{name}"]\n'
            for name, peer in (("a", a), ("b", b), ("c", c))
        )
        route = '[routes.panel]\nstrategy = "panel"\nmembers = ["a/m-a", "b/m-b", "c/m-c"]\nsynthesiser = "first"\n'
        file = folder / "c.toml"
        file.write_text(providers + route)
        yield str(file)


async def test_a_panel_is_legible_in_a_file(tmp_path: Path) -> None:
    async with configured(tmp_path) as file:
        code, out, err = await commands.run("ask", "--config", file, "--route", "panel", "Where?")

    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines[: lines.index(next(line for line in lines if "answer" in line)) + 1])) <= 80
    assert "b/m-b │ Lyon" in lines
    assert "b/m-b │ or Paris" in lines
    assert "a/m-a │ (done: 11 tokens)" in lines
    assert any(line.startswith("c/m-c │ (auth: ") for line in lines)
    by_a = [line.removeprefix("a/m-a │ ") for line in lines if line.startswith("a/m-a │ T") or "a/m-a │ P" in line]
    assert LONG.startswith(by_a[0])
    assert out.endswith(f"── answer {'─' * 70}\n{LONG}\n")
    assert "\x1b" not in out
    assert "Traceback" not in err


@pytest.mark.parametrize("width", [40, 80, 132])
async def test_a_panel_is_legible_in_a_terminal(tmp_path: Path, width: int) -> None:
    main, terminal = pty.openpty()
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        async with configured(tmp_path) as file:
            arguments = ("ask", "--config", file, "--route", "panel", "Where?")
            async with commands.running(*arguments, stdout=terminal) as process:
                assert await process.wait() == 0
        shown = os.read(main, 100_000).decode().replace("\r\n", "\n")
    finally:
        os.close(main)
        os.close(terminal)
    members, _, answer = shown.partition("── answer ")
    assert answer.endswith(f"─\n{LONG}\n")
    assert max(len(line) for line in members.splitlines()) <= width
    assert "b/m-b │ Lyon" in members


async def test_a_route_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with configured(tmp_path) as file:
        code, out, err = await commands.run("ask", "--config", file, "--route", "pannel", "Where?")

    assert (code, out) == (2, "")
    assert err == "llm-runtime: --route: there is no route 'pannel'; known: panel\n"


async def test_route_and_model_exclude_each_other() -> None:
    code, _, err = await commands.run("ask", "--route", "x", "--model", "y", "Where?")
    assert code == 2
    assert "not allowed with" in err


async def test_a_plain_answer_of_a_route_has_no_rule(tmp_path: Path) -> None:
    async with Peer(saying("just ", "this")) as peer:
        file = tmp_path / "c.toml"
        provider = f'[providers.p]\nkind = "openai_compatible"\nbase_url = "{peer.url}/v1"\nmodels = ["m"]\n'
        file.write_text(provider + '[routes.plain]\ncandidates = ["p/m"]\n')
        code, out, _ = await commands.run("ask", "--config", str(file), "--route", "plain", "Where?")

    assert (code, out) == (0, "just this\n")


def test_each_members_lines_are_whole_although_they_come_mixed() -> None:
    long = "b/a-much-longer-name-than-there-is-room-for"
    stage = MemberView(60)
    shown = [
        line
        for event in (
            MemberStarted(member="a/short", request_id="r"),
            MemberStarted(member=long, request_id="r"),
            MemberDelta("a/short", "one "),
            MemberDelta(long, "eins\nzw"),
            MemberDelta("a/short", "two"),
            MemberDelta(long, "ei"),
            MemberDone(member="a/short", cost=0.00001),
            MemberFailed(member=long, failure=Failure(kind=FailureKind.BUDGET, message="used up")),
            MemberStarted(member="a/short", request_id="r2", round=1),
        )
        for line in stage.lines(event)
    ]
    label = "…" + long[1 - LABEL_COLUMNS :]
    assert [" ".join(line.split()) for line in shown] == [
        f"{label} │ eins",
        "a/short │ one two",
        "a/short │ (done, $0.000010)",
        f"{label} │ zwei",
        f"{label} │ (budget: used up)",
        "a/short │ (round 2)",
    ]
    assert {line.index("│") for line in shown} == {LABEL_COLUMNS + 1}


@given(st.text(), st.integers(NARROWEST, 100))
def test_wrapping_loses_nothing_but_the_spaces_it_breaks_at(text: str, room: int) -> None:
    lines = wrapped(text, room)
    assert all(len(line) <= room for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())
