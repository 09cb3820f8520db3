"""Random runs over all strategies, with cancels, faults and budgets: their books against the vendors' journal.

Each prompt has its run's number, so that each bill has its run. `Audit.problems` says where what was told is not what
was billed, exactly or within a tenth where it is marked as an estimate, and where a ceiling was passed by more than one
attempt's share. Hidden reasoning is only in answers that are not cut: nobody can know what was thought before a cut
that no vendor counts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio

from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.dialect import ClientDialect
from llm_protocol.errors import LLMClientError
from llm_protocol.events import Failed, Finished
from llm_protocol.policy import Attempts, Limits, Policy, Timeouts
from llm_protocol.requests import ChatRequest, LLMProvider, Parameters
from llm_protocol.wires.responses import OpenAIResponses
from support.attempts import Vendor, World, status, world
from support.billing import Bill, Fault, Ledger, billing
from support.peer import Call

KINDS = {
    "a": LLMProvider.ANTHROPIC,
    "c": LLMProvider.GEMINI,
    "d": LLMProvider.OPENAI,
    "e": LLMProvider.COHERE,
    "f": LLMProvider.OPENAI,
}
DIALECTS: dict[str, ClientDialect] = {"f": OpenAIResponses()}
NAMES = "abcdef"
"""All wires: ``b`` is a server that is compatible with OpenAI's chat completions, ``f`` speaks the Responses API."""
STRATEGIES = ("single", "fallback", "race", "panel", "council", "best_of", "vote")
FAULTS: tuple[Fault, ...] = ("cut", "close", "stall", "error", "garbage", "no-count")
AT_ONCE = 8
REST_SECONDS = 45.0
"""Between two rounds, so that no circuit stays open for good."""


class _Vendor(Vendor):
    """One to which the way fails now and then."""

    def __init__(self, ledger: Ledger, random: Random) -> None:
        self._ledger = ledger
        self._random = random
        super().__init__([self._step])

    async def dial(self, host: str, port: int) -> trio.SocketStream:
        if self._random.random() < 0.03:
            await trio.sleep(self._random.choice((0.0, 0.1, 60.0)))
            raise ConnectionRefusedError
        return await super().dial(host, port)

    async def _step(self, call: Call) -> None:
        random = self._random
        if random.random() < 0.06:
            await status(random.choice((500, 503, 429, 400, 529)), retry_after="1")(call)
            return
        words = random.randint(1, 300)
        if random.random() < 0.15:
            late = random.uniform(0.1, 2.0)
            await billing(self._ledger, words=words, hidden=random.randint(1, 200), late=late)(call)
            return
        fault: Fault = random.choice(FAULTS) if random.random() < 0.2 else ""
        await billing(
            self._ledger,
            words=words,
            late=random.choice((0.01, 0.3, 2.0)) * random.uniform(0.9, 1.1),  # never two at the same moment
            gap=random.choice((0.0, 0.01, 0.05)),
            fault=fault,
            after=random.randint(0, words),
            keeps_limit=random.random() > 0.05,
        )(call)


@dataclass
class Audit:
    """What came of the runs."""

    runs: int = 0
    exact: int = 0
    estimated: int = 0
    billed: int = 0
    """Tokens."""
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    worst: float = 0.0
    """The largest share by which an estimate was off."""

    def check(self, run: Run, bills: list[Bill], prices: dict[str, int]) -> tuple[int, int]:
        """Compare one run. Returns the tokens it told, in and out: the vendors' counts, which may not be the bills."""
        end = run.log.end
        assert isinstance(end, Finished | Failed)
        assert end.response is not None
        spent = end.response.decision.get("spent", {"usage": {}, "cost": 0.0})
        usage = spent["usage"]
        counted = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
        billed_in, billed_out = usage.get("billed_input_tokens"), usage.get("billed_output_tokens")
        told = counted[0] if billed_in is None else billed_in, counted[1] if billed_out is None else billed_out
        billed = sum(bill.input_tokens for bill in bills), sum(bill.output_tokens for bill in bills)
        cost = sum((bill.input_tokens + bill.output_tokens) * prices[bill.vendor] for bill in bills)
        self.runs += 1
        self.billed += sum(billed)
        self.outcomes["ok" if isinstance(end, Finished) else end.failure.kind.value] += 1
        said = run.request.policy
        why = "" if isinstance(end, Finished) else end.failure.message
        number = run.request.metadata["run"]
        where = f"run {number} {why!r}: told {told} ${spent['cost']}, billed {billed} ${cost}; {said}"
        if said is not None and (over := _overrun(said, billed, cost, bills, prices)) is not None:
            self.problems.append(f"{where}: {over}")
        if usage.get("estimated"):
            self.estimated += 1
            off = max(abs(sum(told) - sum(billed)) / max(1, sum(billed)), abs(spent["cost"] - cost) / max(1, cost))
            self.worst = max(self.worst, off)
            if off > 0.1:
                self.problems.append(f"{where}: {off:.0%} off; {end.response.decision}")
        else:
            self.exact += 1
            if told != billed or spent["cost"] != cost:
                self.problems.append(f"{where}; {end.response.decision}")
        return counted


def _overrun(
    policy: Policy, billed: tuple[int, int], cost: int, bills: list[Bill], prices: dict[str, int]
) -> str | None:
    """By how much a ceiling was passed, if that is more than one attempt was allowed to take."""
    shares = [(bill.input_tokens + max(bill.most or 0, bill.output_tokens), prices[bill.vendor]) for bill in bills]
    if policy.max_tokens is not None and sum(billed) > policy.max_tokens + max(
        (share for share, _ in shares), default=0
    ):
        return f"{sum(billed)} tokens of {policy.max_tokens}"
    if policy.max_cost is not None and cost > policy.max_cost + max(
        (share * price for share, price in shares), default=0
    ):
        return f"${cost} of ${policy.max_cost:.0f}"
    return None


def _policy(random: Random) -> dict[str, Any]:
    """How one run is to be carried out."""
    strategy = random.choice(STRATEGIES)
    names = random.sample(NAMES, random.randint(1, len(NAMES)))
    models = tuple(f"{name}/m-{name}" for name in names)
    policy: dict[str, Any] = {
        "strategy": strategy,
        "candidates": models,
        "hedge": random.random() < 0.3,
        "on_broken_stream": random.choice(("error", "buffer", "continue")),
        "cache": random.choice(("off", "refresh")),
    }
    if strategy in ("panel", "council"):
        policy["synthesiser"] = random.choice((None, "none", "longest", models[0]))
        policy["quorum"] = random.choice((None, 1))
    if strategy in ("best_of", "vote"):
        policy["samples"] = random.randint(1, 3)
    if random.random() < 0.2:
        policy["max_tokens"] = random.randint(100, 3_000)
    if random.random() < 0.2:
        policy["max_cost"] = random.uniform(100.0, 10_000.0)
    return policy


async def _one(w: World, random: Random, number: int) -> Run:
    request = ChatRequest(
        model="auto",
        messages=(Message.of("user", f"#{number}# " + "word" * random.randint(50, 400)),),
        metadata={"run": number},
        parameters=Parameters(max_output_tokens=random.choice((None, None, 20, 150))),
        policy=Policy(**_policy(random)),
        deadline_s=random.uniform(0.5, 10.0) if random.random() < 0.15 else 120.0,
    )
    run = Run(request, stream=random.random() < 0.7)
    cancelled_after = random.uniform(0.0, 6.0) if random.random() < 0.25 else None
    try:
        await w.hand_in(run)
    except LLMClientError:
        return run
    with run.follow() as follower, trio.move_on_after(float("inf") if cancelled_after is None else cancelled_after):
        while await follower.next():
            pass
    if cancelled_after is not None:
        run.cancel("enough")
    with run.follow() as follower:
        while await follower.next():
            pass
    return run


async def random_runs(seed: int, count: int) -> Audit:
    """Carry out ``count`` runs on a virtual clock, and audit them."""
    random, ledger, audit = Random(seed), Ledger(), Audit()
    prices = {name: ord(name) - ord("a") + 1 for name in NAMES}
    a, b, c, d, e, f = (_Vendor(ledger, random) for _ in NAMES)
    timeouts = Timeouts(connect=2, first_token=5, idle=5, total=30)
    attempts, limits = Attempts(max=2, wait_min_s=0.1, wait_max_s=1.0), Limits(max_concurrency=6)
    told = Counter[str]()
    async with world(
        kinds=KINDS, dialects=DIALECTS, timeouts=timeouts, attempts=attempts, limits=limits, prefill="bd",
        a=a, b=b, c=c, d=d, e=e, f=f,
    ) as w:  # fmt: skip
        for first in range(0, count, AT_ONCE):
            runs: list[Run] = []

            async def live(number: int, runs: list[Run] = runs) -> None:
                runs.append(await _one(w, random, number))

            async with trio.open_nursery() as nursery:
                for number in range(first, min(count, first + AT_ONCE)):
                    nursery.start_soon(live, number)
            await w.settled()
            for run in runs:
                bills = [bill for bill in ledger.bills if bill.run == run.request.metadata["run"]]
                into, out = audit.check(run, bills, prices)
                told["input"] += into
                told["output"] += out
            ledger.bills.clear()
            w.runs.clear()
            await trio.sleep(REST_SECONDS)
        booked = Counter[str]()
        for (_, _, kind), tokens in w.tree.services.metrics.tokens.items():
            booked[kind] += tokens
        if booked != told:
            audit.problems.append(f"the books have {dict(booked)} and the runs told {dict(told)}")
    return audit
