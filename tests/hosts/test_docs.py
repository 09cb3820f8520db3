"""The programs in docs/embedding.md for hosts other than Trio run as they are printed."""

from __future__ import annotations

import pytest

import llm_runtime.runtime
from embedding.test_docs import program
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
