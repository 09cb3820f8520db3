"""The same scripts on OTP's own supervisor. Skipped where Erlang is not installed (Debian: erlang-base)."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

import support.otp
from llm_actors.kernel import Restart, Strategy
from llm_actors.testing import run_virtual
from support.actors import Journal
from support.otp import Oracle, OtpScript, ScriptEvent, run_ours

SCRIPTS = 300
PROGRAM = Path(support.otp.__file__).with_name("otp_supervisor.escript")


def random_script(seed: int) -> OtpScript:
    draw = random.Random(seed)
    names = "abcd"[: draw.randint(1, 4)]
    events = [
        ScriptEvent(
            draw.choice(names),
            crash=draw.random() < 0.7,
            failing=tuple((name, draw.randint(1, 2)) for name in names if draw.random() < 0.2),
        )
        for _ in range(draw.randint(1, 6))
    ]
    return OtpScript(
        children=tuple((name, draw.choice(list(Restart))) for name in names),
        strategy=draw.choice(list(Strategy)),
        intensity=draw.randint(0, 8),
        events=tuple(events),
    )


def as_term(script: OtpScript) -> str:
    children = ",".join(f"{{{name},{restart.value}}}" for name, restart in script.children)
    events = ",".join(
        f"{{{event.child},{'crash' if event.crash else 'normal'},"
        f"[{','.join(f'{{{name},{count}}}' for name, count in event.failing)}]}}"
        for event in script.events
    )
    return f"{{{script.strategy.name.lower()},{script.intensity},[{children}],[{events}]}}.\n"


def run_otp(scripts: list[OtpScript]) -> list[Journal]:
    """Return OTP's journal of each script. The process group is ended in any case: escript starts a second process."""
    process = subprocess.Popen(
        ["escript", str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate("".join(map(as_term, scripts)), timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert process.returncode == 0
    return [line.split(",") for line in output.splitlines()]


@pytest.mark.skipif(shutil.which("escript") is None, reason="Erlang is not installed (Debian: erlang-base)")
def test_otp_gives_the_same_answers() -> None:
    """Three hundred scripts: OTP, the oracle and our supervisor write the same journals."""
    scripts = [random_script(seed) for seed in range(SCRIPTS)]
    journals = run_otp(scripts)
    assert len(journals) == SCRIPTS
    for script, otp in zip(scripts, journals, strict=True):
        assert Oracle(script).run() == otp, script
        assert run_virtual(partial(run_ours, script)) == otp, script
