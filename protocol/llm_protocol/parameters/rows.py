"""How values are translated. Each function takes a value and returns the target's value, `LEAVE_OUT`, or a
`CannotKeep`.

`docs/parameters.md` describes them with the texts in `table._HOW`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias


class CannotKeep(NamedTuple):
    """Why a value cannot be kept. The candidate is then skipped."""

    why: str


class _LeaveOut:
    """The type of `LEAVE_OUT`."""


LEAVE_OUT: Final = _LeaveOut()

Translation: TypeAlias = Callable[[Any], Any]

_CHEAPER: Final = frozenset(("flex", "batch"))
"""Tiers whose loss would raise the price."""

_FASTER: Final = frozenset(("priority", "fast", "scale"))


def _without_cheaper(value: Any) -> Any:
    if value in _CHEAPER:
        return CannotKeep(f"there is no service tier like {value!r}, and every other tier costs more")
    return LEAVE_OUT


def no_tier(value: Any) -> Any:
    """Leave out the tier. ``flex`` and ``batch`` cannot be kept: any other tier costs more."""
    return _without_cheaper(value)


def tier_of_openai(value: Any) -> Any:
    """Return OpenAI's name of the service tier."""
    return "default" if value in ("standard_only", "standard") else value


def tier_of_compatible(value: Any) -> Any:
    """Return the tier unchanged: the server decides."""
    return value


def tier_of_anthropic(value: Any) -> Any:
    """Return Anthropic's name of the tier. ``flex`` and ``batch`` cannot be kept: any other tier costs more."""
    if value in ("default", "standard", "standard_only"):
        return "standard_only"
    return "auto" if value in _FASTER or value == "auto" else _without_cheaper(value)


def tier_of_gemini(value: Any) -> Any:
    """Return Gemini's name of the tier. ``batch`` cannot be kept: any other tier costs more."""
    if value in ("default", "standard", "standard_only"):
        return "standard"
    if value in _FASTER:
        return "priority"
    return value if value == "flex" else _without_cheaper(value)


EFFORT_BUDGETS: Final = {
    "minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 24_576, "max": 31_999,
}  # fmt: skip
"""The thinking budget, in tokens, for each effort, if nothing else is known about the model."""


def effort_of_budget(budget: Any) -> Any:
    """Return the lowest effort whose budget is at least ``budget``; for 0, ``"none"``."""
    if budget <= 0:
        return "none"
    return next((effort for effort, tokens in EFFORT_BUDGETS.items() if tokens >= budget), "max")
