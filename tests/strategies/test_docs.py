"""docs/orchestration.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

from trio.testing import MockClock

from bench.strategies import measure, table
from llm_actors.orchestrator.strategies import context, ensemble, knowledge, member_seats, prompts
from llm_runtime.config import parse

TEXT = (Path(__file__).parents[2] / "docs" / "orchestration.md").read_text()
WORDS = " ".join(TEXT.split())
VENDOR = '[providers.{name}]\nkind = "openai_compatible"\nbase_url = "http://127.0.0.1:1/v1"\n'


async def test_the_table_of_costs_is_the_benchmarks(autojump_clock: MockClock) -> None:
    assert table(await measure()) in TEXT


def test_the_example_is_valid() -> None:
    [example] = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    providers = "".join(VENDOR.format(name=name) for name in "abc")
    assert parse((providers + example).encode(), {}).routes["panel"].quorum == 2


def test_the_bounds_are_those_of_the_code() -> None:
    assert f"at most {prompts.ANSWER_CHARACTERS:,} characters of each" in WORDS
    assert f"at most {context.CONTEXT_CHARACTERS:,} characters, with cuts marked" in WORDS
    assert f"the last {knowledge.MAX_PIECES}, at most {knowledge.PIECE_CHARACTERS:,} characters" in WORDS
    assert f"the last {knowledge.MAX_CONVERSATIONS:,} conversations" in WORDS
    assert f"members have {ensemble.MEMBERS_SHARE:.0%} of".replace("%", " %") in WORDS
    assert member_seats.DEFAULT_MEMBERS == 3
