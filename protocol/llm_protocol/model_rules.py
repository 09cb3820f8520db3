"""What a vendor's models take of a request, as data: the first row whose pattern matches the model's name counts.

Translation reads it, and so does the choice of `auto`. A model that no row knows takes everything. The rows say what
makes a vendor refuse a request, as its documentation and its errors had it on 29 November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

from llm_protocol.requests import LLMProvider

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""All that wires know, from least to most."""

Sampling: TypeAlias = Literal["always", "without reasoning", "never"]


class ModelRule(NamedTuple):
    """``efforts``: those that the model takes; empty where it is not known. ``default_effort``: what it does unasked.
    ``sampling``: when it takes ``temperature`` and ``top_p``. ``reasons_with_tools``: whether, on the wire we speak,
    function tools and reasoning go together. ``forced_tools``: whether a call can be demanded.
    """

    pattern: re.Pattern[str]
    efforts: tuple[str, ...] = ()
    default_effort: str | None = None
    sampling: Sampling = "always"
    reasons_with_tools: bool = True
    forced_tools: bool = True


def _row(
    pattern: str,
    efforts: str = "",
    *,
    default: str | None = None,
    sampling: Sampling = "always",
    reasons_with_tools: bool = True,
    forced_tools: bool = True,
) -> ModelRule:
    return ModelRule(re.compile(pattern), tuple(efforts.split()), default, sampling, reasons_with_tools, forced_tools)


def _gpt(pattern: str, efforts: str, default: str) -> ModelRule:
    return _row(pattern, efforts, default=default, sampling="without reasoning", reasons_with_tools=False)


_NEW: Final = "low medium high xhigh max"

RULES: Final[dict[LLMProvider, tuple[ModelRule, ...]]] = {
    LLMProvider.OPENAI: (
        _gpt(r"gpt-6\.1-sol", "low medium high xhigh", "medium"),
        _gpt(r"gpt-6(\.\d)?-astra|gpt-6\.2-sol", _NEW, "medium"),
        _gpt(r"gpt-(6|5\.[6-9])", f"none {_NEW}", "medium"),
        _gpt(r"gpt-5\.5", "none low medium high xhigh", "medium"),
        _gpt(r"gpt-5\.4", "none low medium high xhigh", "none"),
        _row(r"gpt-5\.[123](?!-(chat|codex))", default="none", sampling="without reasoning"),
        _row(r"gpt-5(?![.\d]|-chat)|o\d", default="medium", sampling="never"),
    ),
    # Sampling of the other Claudes is in the wire's own table.
    LLMProvider.ANTHROPIC: (
        _row(r".*claude-(opus-5-5|fable-5-1)", _NEW, forced_tools=False),
        _row(r".*claude-(fable|mythos)-5", _NEW),
        _row(r".*claude-sonnet-5-5", f"none {_NEW}", forced_tools=False),
    ),
    # What is not known here takes what all of Gemini 3 takes.
    LLMProvider.GEMINI: (
        _row(r"gemini-(1|2)|gemma|learnlm"),  # they are not graded, or do not think
        _row(r"gemini-4", "low medium high xhigh"),
        _row(r"gemini-(3-flash|3\.[56]-flash|.*flash-lite)", "minimal low medium high"),
        _row(r"", "low medium high"),
    ),
}
"""Rules by vendor. Compatible servers have none: they tell for themselves what they do not take."""

_FREE: Final = _row("")


@lru_cache(maxsize=4096)
def rule_of(kind: LLMProvider, model: str) -> ModelRule:
    """The rule for ``model``."""
    return next((rule for rule in RULES.get(kind, ()) if rule.pattern.match(model)), _FREE)


def nearest_effort(effort: str, efforts: Sequence[str]) -> str:
    """The greatest of ``efforts`` that is not above ``effort``, else the least; ``effort`` itself where ``efforts`` is
    empty or the word is none that wires know.
    """
    if not efforts or effort not in EFFORTS:
        return effort
    most = EFFORTS.index(effort)
    return max((each for each in efforts if EFFORTS.index(each) <= most), key=EFFORTS.index, default=efforts[0])
