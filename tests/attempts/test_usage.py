"""What an attempt took: the vendor's final count, or else the larger of what it said and what it delivered."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from llm_protocol.policy import Limits
from llm_protocol.requests import LLMProvider
from support.attempts import Asked, answering, status, world
from support.billing import Fault, Ledger, billing

PROMPT = "word" * 400
"""Four hundred tokens, which dwarf what a message costs beside them."""

WIRES = {"chat": {}, "anthropic": {"a": LLMProvider.ANTHROPIC}, "gemini": {"a": LLMProvider.GEMINI}}


def is_within_a_tenth(asked: Asked, ledger: Ledger) -> bool:
    usage = asked.response.usage
    assert usage is not None
    billed = sum(ledger.total())
    return usage.estimated and abs(usage.total_tokens - billed) <= billed / 10


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", ["cut", "close", "stall", "error", "garbage"])
async def test_a_broken_stream_is_billed_for_what_it_delivered(
    autojump_clock: MockClock, wire: str, fault: Fault
) -> None:
    ledger = Ledger()
    steps = [billing(ledger, words=900, gap=0.01, fault=fault, after=500)]
    async with world(a=steps, kinds=WIRES[wire]) as w:
        asked = await w.ask(prompt=PROMPT)
        tokens = dict(w.tree.services.metrics.tokens)

    assert asked.failure is not None
    assert ledger.bills[0].output_tokens == 500
    assert is_within_a_tenth(asked, ledger)
    [made] = asked.attempts
    assert made["usage"]["estimated"]
    assert made["cost"] == asked.response.cost == asked.decision["spent"]["cost"]
    assert tokens["a", "m-a", "output"] == asked.response.usage.output_tokens  # type: ignore[union-attr]


@pytest.mark.parametrize("wire", WIRES)
async def test_a_cancelled_stream_is_billed_for_what_it_delivered(autojump_clock: MockClock, wire: str) -> None:
    ledger = Ledger()
    async with world(a=[billing(ledger, words=900, gap=0.01)], kinds=WIRES[wire]) as w:
        began = trio.current_time()
        run = await w.submit(prompt=PROMPT)
        await trio.sleep(5.005)
        run.cancel("enough")
        asked = await w.see(run, began)
        await w.settled()

    assert 480 <= ledger.bills[0].output_tokens <= 501
    assert is_within_a_tenth(asked, ledger)


@pytest.mark.parametrize("wire", WIRES)
async def test_an_answer_without_a_final_count_is_estimated(autojump_clock: MockClock, wire: str) -> None:
    ledger = Ledger()
    async with world(a=[billing(ledger, words=300, fault="no-count")], kinds=WIRES[wire]) as w:
        asked = await w.ask(prompt=PROMPT)

    assert asked.failure is None
    assert is_within_a_tenth(asked, ledger)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_final_count_is_the_vendors_own(autojump_clock: MockClock, wire: str, stream: bool) -> None:
    ledger = Ledger()
    async with world(a=[billing(ledger, words=30, hidden=7)], kinds=WIRES[wire]) as w:
        asked = await w.ask(prompt=PROMPT, stream=stream)

    usage = asked.response.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (*ledger.total(), False)
    assert asked.decision["spent"] == {"usage": asked.attempts[0]["usage"], "cost": asked.response.cost}


async def test_an_error_status_is_not_billed(autojump_clock: MockClock) -> None:
    async with world(a=[status(500)], b=[status(400)]) as w:
        asked = await w.ask()

    assert {one["outcome"] for one in asked.attempts} == {"server_error", "bad_request"}
    assert [one for one in asked.attempts if "usage" in one] == []
    assert asked.decision["spent"]["cost"] == 0.0


async def test_what_a_lost_attempt_took_is_told_beside_the_answers_own(autojump_clock: MockClock) -> None:
    ledger = Ledger()
    broken, whole = billing(ledger, words=50, fault="close", after=20), billing(ledger, words=10)
    async with world(a=[broken], b=[whole]) as w:
        asked = await w.ask(prompt=PROMPT, on_broken_stream="buffer")

    assert asked.response.provider == "b"
    spent, usage = asked.decision["spent"]["usage"], asked.response.usage
    assert usage is not None
    assert (usage.output_tokens, usage.estimated) == (10, False)
    lost = [one["usage"]["output_tokens"] for one in asked.attempts if one["outcome"] != "ok"]
    assert spent["output_tokens"] == 10 + sum(lost)
    assert spent["estimated"]


async def test_a_hedge_that_was_never_sent_costs_nothing(autojump_clock: MockClock) -> None:
    """It waits for the one slot of its provider when the first answers."""
    one_slot = {"a": Limits(max_concurrency=4), "b": Limits()}
    async with world(a=[answering(late=2.0)], b=[answering(late=30.0)], limits=one_slot) as w:
        for name in "ab":
            w.season(name, usual=0.5)
        w["b"]._bad_dials, w["b"]._dead = 1, True  # the way to it hangs
        asked = await w.ask(hedge=True)
        attempts = dict(w.tree.services.metrics.attempts)

    assert asked.failure is None
    [lost] = [one for one in asked.attempts if one.get("hedge")]
    assert (lost["outcome"], lost["asked"]) == ("cancelled", False)
    assert "usage" not in lost
    assert asked.calls == 1
    assert attempts == {("a", "ok"): 1}
    assert w["b"].requests == []
