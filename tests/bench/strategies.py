"""What each strategy costs compared with a single response, with fake vendors of known delays, prices and responses.

The clock is virtual, and the fakes count four characters as a token. So the table is the same on every machine. It is
in ``docs/orchestration.md``, and a test compares them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio
from trio.testing import MockClock

from llm_actors.kernel import running
from llm_actors.orchestrator import accept
from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.policy import Policy
from llm_protocol.requests import ChatRequest, LLMProvider
from llm_protocol.response import LLMResponse, Usage
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Provider
from llm_runtime.fake import FakeProvider, ScriptRule
from llm_runtime.providers import provider_spec, supervised
from llm_runtime.tree import Tree

SECONDS = {"a": 2.0, "b": 3.0, "c": 12.0}
"""How long each vendor takes to its first token; a whole answer takes little more."""

QUESTION = "x" * 400
ANSWER = "word " * 240
PRICE_IN, PRICE_OUT = 1.0, 4.0
"""A million tokens in and out, in dollars: the proportion is usual, the height does not matter."""

MEMBERS = tuple(f"{name}/m-{name}" for name in SECONDS)
WAYS: dict[str, Policy] = {
    "single": Policy(strategy="single", candidates=MEMBERS[:1]),
    "race": Policy(strategy="race", members=MEMBERS),
    "panel, no synthesis": Policy(strategy="panel", members=MEMBERS, synthesiser="none"),
    "panel": Policy(strategy="panel", members=MEMBERS),
    "panel, quorum 2": Policy(strategy="panel", members=MEMBERS, quorum=2, grace_s=0.5),
    "council, 1 round": Policy(strategy="council", members=MEMBERS),
    "best_of 3": Policy(strategy="best_of", members=MEMBERS[:1], samples=3),
    "vote of 3": Policy(strategy="vote", members=MEMBERS),
}


class Row(NamedTuple):
    """One strategy's line."""

    way: str
    calls: int
    tokens_in: int
    tokens_out: int
    cost: float
    seconds: float


def cost_of(_: str, __: str, usage: Usage) -> float:
    return (usage.input_tokens * PRICE_IN + usage.output_tokens * PRICE_OUT) / 1e6


@asynccontextmanager
async def tree(fake: FakeProvider) -> AsyncIterator[Tree]:
    """A runtime's tree in front of the fake, with a provider for each of `SECONDS`."""
    kind = LLMProvider.OPENAI_COMPATIBLE
    config = Config(
        providers={
            name: Provider(kind=kind, base_url=fake.base_url(kind), api_key=Secret("sk"), models=(f"m-{name}",))
            for name in SECONDS
        }
    )
    providers = [
        supervised(provider_spec(name, provider), dial=fake.dial) for name, provider in config.providers.items()
    ]
    made = Tree(config, providers, cost_of)
    async with running(made.root):
        yield made


async def ask(made: Tree, policy: Policy) -> tuple[LLMResponse, float]:
    """One answer and how long it took, in virtual seconds."""
    began = trio.current_time()
    run = Run(ChatRequest(messages=(Message.of("user", QUESTION),), policy=policy), stream=True)
    await accept(made.orchestrator, run)
    with run.follow() as follower:
        while await follower.next():
            pass
    end = run.log.end
    assert end is not None
    assert end.response is not None
    return end.response, trio.current_time() - began


async def measure() -> list[Row]:
    """All ways, one after the other, each on a runtime that knows nothing yet."""
    rows = []
    for way, policy in WAYS.items():
        verdict = ScriptRule(contains="Reply with its letter alone", text="A")
        rules = [
            verdict,
            *(ScriptRule(model=f"m-{name}", text=ANSWER, delay_first_s=late) for name, late in SECONDS.items()),
        ]
        async with FakeProvider(*rules) as fake, tree(fake) as made:
            response, seconds = await ask(made, policy)
            usage = response.usage
            assert usage is not None
            assert response.cost is not None
            calls = len(fake.journal.requests)
            rows.append(Row(way, calls, usage.input_tokens, usage.output_tokens, response.cost, seconds))
    return rows


def table(rows: list[Row]) -> str:
    """As Markdown; cost and time as multiples of the first line's."""
    one = rows[0]
    lines = ["| strategy | calls | tokens in | tokens out | cost | time |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row.way} | {row.calls} | {row.tokens_in} | {row.tokens_out} | {row.cost / one.cost:.1f} x"
        f" | {row.seconds / one.seconds:.1f} x |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    """Print the table."""
    print(table(trio.run(measure, clock=MockClock(autojump_threshold=0))))
    return 0


if __name__ == "__main__":
    main()
