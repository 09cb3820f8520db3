"""The result of a selection: all candidates in the order to try, with reasons.

`llm-runtime explain` prints it, and it is part of a response's decision record.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from llm_actors.deployment import Candidate
from llm_actors.selector.score import Figures, Terms, Weights
from llm_protocol.content import JsonObject
from llm_protocol.errors import error_for
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import Select
from llm_protocol.response import Usage

DIGITS = 6
"""The number of decimals in a decision record."""


class Unavailable(NamedTuple):
    """Why a candidate is not called now: ``why``, for another ``seconds`` as far as is known. Callers get an error of
    this ``kind``.

    ``by_another``: the candidate may be available, because only a failure of another model of the same provider speaks
    against it.
    """

    kind: FailureKind
    why: str
    seconds: float
    by_another: bool = False

    def failure(self, candidate: Candidate) -> Failure:
        """Return the failure of an attempt at ``candidate`` that is not made for this reason."""
        return Failure(
            kind=self.kind,
            message=f"{candidate}: not tried ({self.why})",
            provider=candidate.provider,
            model=candidate.model,
            retry_after=self.seconds,
        )


class RankedCandidate(NamedTuple):
    """One candidate, with the ``reason`` for its position. A lower ``score`` is better. ``unavailable``: why it
    cannot be called now, if so.
    """

    candidate: Candidate
    reason: str
    score: float
    figures: Figures
    terms: Terms
    unavailable: Unavailable | None = None
    probe: bool = False

    def place(self) -> JsonObject:
        """Return the candidate and the reason, as JSON data."""
        return {
            "provider": self.candidate.provider,
            "model": self.candidate.model,
            "reason": self.reason,
            "ready": self.unavailable is None,
        }

    def record(self) -> JsonObject:
        """Return the candidate, the reason and the measurements, as JSON data. ``None``: unknown."""
        latency, price, unavailability = self.terms
        latency_s, cost, availability = self.figures
        return self.place() | {
            "score": round(self.score, DIGITS),
            "terms": {
                "latency": round(latency, DIGITS),
                "price": round(price, DIGITS),
                "unavailability": round(unavailability, DIGITS),
            },
            "figures": {
                "latency_s": None if latency_s is None else round(latency_s, DIGITS),
                "cost_usd": None if cost is None else round(cost, DIGITS),
                "availability": round(availability, DIGITS),
            },
        }


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """All candidates: first the available ones, then the others, the one that is available soonest first.

    ``warnings`` and ``notes``: other facts about the candidates, one sentence each. ``is_judged`` is False if there was
    only one candidate, so that no measurements were used.
    """

    select: Select | str
    weights: Weights
    choices: tuple[RankedCandidate, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    usage: Usage = Usage()
    """The usage for which times and prices are shown: the expected one, or one typical of the type of request."""
    is_judged: bool = True

    @property
    def candidates(self) -> list[Candidate]:
        """All candidates, in the order to try."""
        return [choice.candidate for choice in self.choices]

    @property
    def ready(self) -> list[Candidate]:
        """The candidates that are available now, in the order to try."""
        return [choice.candidate for choice in self.choices if choice.unavailable is None]

    @property
    def refusal(self) -> Failure | None:
        """The failure if no candidate is available, with the time until one is; ``None`` if one is available."""
        if any(choice.unavailable is None for choice in self.choices):
            return None
        soonest = self.choices[0]
        assert soonest.unavailable is not None
        failure = soonest.unavailable.failure(soonest.candidate)
        if len(self.choices) == 1:
            return failure
        each = "; ".join(
            f"{choice.candidate}: {choice.unavailable.why}" for choice in self.choices if choice.unavailable
        )
        return msgspec.structs.replace(failure, message=f"none of {len(self.choices)} candidates is available: {each}")

    def best(self) -> Candidate:
        """Return the first candidate to try. Raises the `LLMClientError` of `refusal` if none is available."""
        if (refusal := self.refusal) is not None:
            raise error_for(refusal)
        return self.choices[0].candidate

    def record(self) -> JsonObject:
        """Return the ranking as JSON data, for the decision record."""
        if not self.is_judged:
            return {"select": self.select, "candidates": [choice.place() for choice in self.choices]}
        return {
            "select": self.select,
            "weights": msgspec.structs.asdict(self.weights),
            "expected_tokens": {"input": self.usage.input_tokens, "output": self.usage.output_tokens},
            "candidates": [choice.record() for choice in self.choices],
        }

    def lines(self) -> list[str]:
        """Return the ranking as text: one line for each candidate, with the reason for its position and its
        measurements, then the notes and warnings.
        """
        return [
            *self._places(),
            *(f"note: {note}" for note in self.notes),
            *(f"warning: {warning}" for warning in self.warnings),
        ]

    def _places(self) -> list[str]:
        return [
            f"{place}. {choice.candidate}  {choice.reason}{_again(choice.unavailable)}"
            f"  ({_seconds(choice.figures.latency_s)}, {_dollars(choice.figures.cost_usd)},"
            f" {choice.figures.availability:.1%} available{', ranked as 100.0%' if choice.probe else ''};"
            f" score {choice.score:.3f}: latency {choice.terms.latency:.2f}, price {choice.terms.price:.2f},"
            f" unavailability {choice.terms.unavailability:.2f})"
            for place, choice in enumerate(self.choices, 1)
        ]


def _again(unavailable: Unavailable | None) -> str:
    return "" if unavailable is None else f", for another {unavailable.seconds:.1f} s"


def _seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f} s"


def _dollars(value: float | None) -> str:
    return "price unknown" if value is None else f"${value:.6f}"
