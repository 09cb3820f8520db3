"""The programs in docs/embedding.md for hosts other than Trio, and with a daemon, run as they are printed."""

from __future__ import annotations

import pytest

import llm_runtime.runtime
from embedding.test_docs import program
from hosts.adapters import DAEMONS, KEY
from hosts.conftest import Upstream


@pytest.mark.parametrize(
    ("heading", "ends"),
    [("On asyncio", " None\n"), ("In threads, scripts and notebooks", "You said: Tell me a story.")],
    ids=["asyncio", "sync"],
)
def test_the_program_runs(
    heading: str, ends: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(llm_runtime.runtime, "_configured", lambda *_: upstream.config)
    exec(compile(program(heading), "docs/embedding.md", "exec"), {"__name__": "snippet"})
    said = capsys.readouterr().out
    assert said.startswith("You said: Say hello.")
    assert said.endswith(ends)


def test_the_program_runs_with_a_daemon(upstream: Upstream, capsys: pytest.CaptureFixture[str]) -> None:
    url = DAEMONS[upstream.config.providers["fake"].base_url]
    text = program("In a daemon").replace("http://127.0.0.1:8080", url).replace('key="…"', f'key="{KEY}"')
    exec(compile(text, "docs/embedding.md", "exec"), {"__name__": "snippet"})
    assert capsys.readouterr().out.startswith("You said: Say hello.")
