"""What Gemini's models take, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Thinking(NamedTuple):
    """How one family of models is told how much to think. ``levels`` maps an effort to ``thinkingLevel``, ``budgets``
    to ``thinkingBudget``; an effort in neither is refused. Which of the levels a model has is in
    `llm_protocol.model_rules`.
    """

    models: re.Pattern[str]
    levels: dict[str, str]
    budgets: Mapping[str, int | None]
    needs_signatures: bool = False
    """A tool call in the history must bear a signature, or the request is refused."""


_LEVELS = {name: name.upper() for name in ("minimal", "low", "medium", "high", "xhigh")}
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}

THINKING = (
    Thinking(re.compile(r"gemini-2\.5-pro"), {}, {"none": 128, **_BUDGETS, "xhigh": 32768, "max": 32768}),
    Thinking(re.compile(r"gemini-2\.5"), {}, {"none": 0, **_BUDGETS, "xhigh": 24576, "max": 24576}),
    Thinking(re.compile(r"(gemini-(1|2\.0)|gemma|learnlm)"), {}, {"none": None}),
    # The rest are Gemini 3 and later, the "-latest" names, and names we do not know.
    Thinking(re.compile(r""), _LEVELS, {}, needs_signatures=True),
)


def thinking_of(model: str) -> Thinking:
    """The habits of ``model``."""
    name = model.rpartition("/")[2]
    return next(family for family in THINKING if family.models.match(name))


NO_SIGNATURE = "skip_thought_signature_validator"
"""What Gemini 3 accepts in place of a signature on a tool call that another model made."""
