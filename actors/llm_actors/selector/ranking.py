"""The result of a selection: all candidates in the order to try, with reasons. Shown by `explain`, and part of a
response's decision record.
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
"""Decimals in a record."""


class Unavailable(NamedTuple):
    """A candidate is not called for ``seconds``, as far as is known, because ``why``; callers get an error of this
    ``kind``.

    ``by_another``: a guess only, after a failure of another model of its provider.
    """

    kind: FailureKind
    why: str
    seconds: float
    by_another: bool = False

    def failure(self, candidate: Candidate) -> Failure:
        """The failure of an attempt at ``candidate`` now; no call was made."""
        return Failure(
            kind=self.kind,
            message=f"{candidate}: not tried, because {self.why}",
            provider=candidate.provider,
            model=candidate.model,
            retry_after=self.seconds,
        )


class RankedCandidate(NamedTuple):
    """One candidate and its position. ``unavailable`` is ``None`` if it is available; ``score``: lower is better."""

    candidate: Candidate
    reason: str
    score: float
    figures: Figures
    terms: Terms
    unavailable: Unavailable | None = None
    probe: bool = False

    def place(self) -> JsonObject:
        """The candidate and the reason, as plain data."""
        return {
            "provider": self.candidate.provider,
            "model": self.candidate.model,
            "reason": self.reason,
            "ready": self.unavailable is None,
        }

    def record(self) -> JsonObject:
        """The same with the measurements. An unknown one is ``None``."""
        return self.place() | {
            "score": round(self.score, DIGITS),
            "terms": {name: round(value, DIGITS) for name, value in self.terms._asdict().items()},
            "figures": {
                name: None if value is None else round(value, DIGITS) for name, value in self.figures._asdict().items()
            },
        }


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """All candidates: the available ones, then the unavailable ones in the order of their return. ``warnings`` and
    ``notes``: other facts about them, one sentence each. If it is not ``is_judged``, there was only one candidate, and
    no measurements were used.
    """

    select: Select | str
    weights: Weights
    choices: tuple[RankedCandidate, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    usage: Usage = Usage()
    """The usage for which times and prices are shown: the expected one, or one typical of its type."""
    is_judged: bool = True

    @property
    def candidates(self) -> list[Candidate]:
        """All of them, in the order to try."""
        return [choice.candidate for choice in self.choices]

    @property
    def ready(self) -> list[Candidate]:
        """Those that are available now, in the order to try."""
        return [choice.candidate for choice in self.choices if choice.unavailable is None]

    @property
    def refusal(self) -> Failure | None:
        """Why no candidate is available, with the time until one is; ``None`` if one is."""
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
        return msgspec.structs.replace(failure, message=f"none of {len(self.choices)} candidates can be asked: {each}")

    def best(self) -> Candidate:
        """The first candidate to try. Raises the `LLMClientError` of `refusal` if there is none."""
        if (refusal := self.refusal) is not None:
            raise error_for(refusal)
        return self.choices[0].candidate

    def record(self) -> JsonObject:
        """As plain data, for the decision record."""
        if not self.is_judged:
            return {"select": self.select, "candidates": [choice.place() for choice in self.choices]}
        return {
            "select": self.select,
            "weights": msgspec.structs.asdict(self.weights),
            "expected_tokens": {"input": self.usage.input_tokens, "output": self.usage.output_tokens},
            "candidates": [choice.record() for choice in self.choices],
        }

    def lines(self) -> list[str]:
        """As text, a line for each candidate, the first to try on top: the reason for its position, then its
        measurements. Notes and warnings come last.
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
