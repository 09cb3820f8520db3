"""The programs in docs/embedding.md for hosts other than Trio and with a daemon, and those in docs/how-to/extend.md.

They run as they are printed.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import llm_runtime.opening
from embedding.test_docs import ROOT, program
from hosts.adapters import DAEMONS, KEY
from hosts.conftest import Upstream
from llm_actors.cache import disk, own_tier
from llm_actors.orchestrator.strategies import own


@pytest.mark.parametrize(
    ("heading", "ends"),
    [("On asyncio", " None\n"), ("In threads, scripts and notebooks", "You said: Tell me a story.")],
    ids=["asyncio", "sync"],
)
def test_the_program_runs(
    heading: str, ends: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(llm_runtime.opening, "_configured", lambda *_: upstream.config)
    exec(compile(program(heading), "docs/embedding.md", "exec"), {"__name__": "snippet"})
    said = capsys.readouterr().out
    assert said.startswith("You said: Say hello.")
    assert said.endswith(ends)


def test_the_program_runs_with_a_daemon(upstream: Upstream, capsys: pytest.CaptureFixture[str]) -> None:
    url = DAEMONS[upstream.config.providers["fake"].base_url]
    text = program("In a daemon").replace("http://127.0.0.1:8080", url).replace('key="…"', f'key="{KEY}"')
    exec(compile(text, "docs/embedding.md", "exec"), {"__name__": "snippet"})
    assert capsys.readouterr().out.startswith("You said: Say hello.")


EXTEND = "docs/how-to/extend.md"


@pytest.mark.parametrize(
    ("heading", "says"),
    [
        ("A strategy", "You said: What is 6 * 7? small\n"),
        ("An ordering", "1. small/a  slow: False  ("),
        ("A cache store", "miss\nhit\n"),
    ],
)
def test_the_programs_that_extend_the_runtime(
    heading: str,
    says: str,
    upstream: Upstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = upstream.config.providers["fake"].base_url
    one = '[providers.{}]\nkind = "openai_compatible"\nbase_url = "{}"\nmodels = {}\n'
    providers = one.format("small", base, '["a", "b"]') + one.format("large", base, '["a"]')
    route = ""
    if heading == "An ordering":
        [route] = re.findall(r"^```toml\n(.*?)^```$", (ROOT / EXTEND).read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "my.toml").write_text(providers + route)
    monkeypatch.chdir(tmp_path)
    exec(compile(program(heading, file=EXTEND), EXTEND, "exec"), {"__name__": "snippet"})
    assert capsys.readouterr().out.startswith(says)


def test_the_bounds_of_extensions_are_those_of_the_code() -> None:
    text = " ".join((ROOT / EXTEND).read_text().split())
    assert f"at most {own.MAX_CALLS} calls" in text
    assert f"longer than {disk.READ_SECONDS:g} s, the request continues without the cache" in text
    assert f"continue without the store for {own_tier.RETRY_SECONDS:g} s" in text
