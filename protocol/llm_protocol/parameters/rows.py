"""A row of the table: one parameter, its handling at each target, and how its values are translated.

A translation takes a value and returns the target's value, `LEAVE_OUT`, or a `CannotKeep`. `docs/parameters.md`
describes translations with the texts in ``_HOW``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from llm_protocol.parameters.targets import TARGETS, RequestTarget

Kind: TypeAlias = Literal["hint", "budget", "meaning"]
Action: TypeAlias = Literal["send", "translate", "leave out", "emulate", "refuse"]
Translation: TypeAlias = Callable[[Any], Any]

CHAT: Final = "openai_chat"
RESPONSES: Final = "openai_responses"
ANTHROPIC: Final = "anthropic"
GEMINI: Final = "gemini"
COHERE: Final = "cohere"


class Cell(msgspec.Struct, frozen=True):
    """The handling of a parameter at one target. ``how`` translates its value; ``words`` describe the change."""

    action: Action
    how: Translation | None = None
    words: str = ""


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One row. ``field`` is the field of `Parameters` or of the request; a parameter without such a field is in
    ``extra``. ``wires`` has the path of the parameter on each wire. A value in ``neutral`` has no effect: if a target
    has no such parameter, the value is left out without a report. ``example`` is a value with an effect. ``about``
    says, for the documentation, which values the row is about, if other rows have the others.
    """

    name: str
    kind: Kind
    wires: Mapping[str, str]
    cells: Mapping[str, Cell]
    field: str | None = None
    neutral: tuple[Any, ...] = ()
    example: Any = None
    about: str = ""

    def cell(self, target: RequestTarget) -> Cell:
        """Return the handling of the parameter at ``target``."""
        known = None if self.name in target.lacks else self.cells.get(target.name)
        return known or DEFAULTS[self.kind]


DEFAULTS: Final[dict[Kind, Cell]] = {
    "hint": Cell("leave out"),
    "budget": Cell("leave out"),
    "meaning": Cell("refuse"),
}

ALL: Final = " ".join(TARGETS)
OPENAI_WIRE: Final = "openai compatible local"
CHAT_WIRE: Final = f"{OPENAI_WIRE} cerebras"


# ---------------------------------------------------------------- translations


class CannotKeep(NamedTuple):
    """Why a value cannot be kept. The candidate is then skipped."""

    why: str


class _LeaveOut:
    """The type of `LEAVE_OUT`."""


LEAVE_OUT: Final = _LeaveOut()

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


TIERS: Final[dict[str, Translation]] = {
    **dict.fromkeys(["openai", "responses", "cerebras"], tier_of_openai),
    **dict.fromkeys(["compatible", "local"], tier_of_compatible),
    "anthropic": tier_of_anthropic,
    "gemini": tier_of_gemini,
    "cohere": no_tier,
}
"""The translation of service tiers for each target."""

EFFORT_BUDGETS: Final = {
    "minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 24_576, "max": 31_999,
}  # fmt: skip
"""The thinking budget, in tokens, for each effort, if nothing else is known about the model."""


def effort_of_budget(budget: Any) -> Any:
    """Return the lowest effort whose budget is at least ``budget``; for 0, ``"none"``."""
    if budget <= 0:
        return "none"
    return next((effort for effort, tokens in EFFORT_BUDGETS.items() if tokens >= budget), "max")


_HOW: Final[dict[Translation, str]] = {
    no_tier: "left out; `flex` and `batch` are refused: they ask for a lower price, and there is no tier with one",
    tier_of_openai: "Anthropic's `standard_only` and Gemini's `standard` become `default`; others are sent",
    tier_of_compatible: "sent",
    tier_of_anthropic: (
        "`default` and `standard` become `standard_only`; `priority`, `fast` and `scale` become `auto`; "
        "`flex` and `batch` are refused, other values left out"
    ),
    tier_of_gemini: (
        "`default` and `standard_only` become `standard`; `fast` and `scale` become `priority`; "
        "`flex` is sent, `batch` refused, and other values are left out"
    ),
    effort_of_budget: "the lowest effort that stands for at least as many tokens, or else `max`; `none` for 0",
}
"""The text of the generated page for each translation."""


# ---------------------------------------------------------------- how rows are written


def row(
    name: str,
    kind: Kind,
    *,
    send: str = "",
    translate: Mapping[str, Translation] | None = None,
    emulate: Mapping[str, str] | None = None,
    leave_out: str = "",
    refuse: str = "",
    **more: Any,
) -> Parameter:
    """Make a row from lists of targets, one per action."""
    cells: dict[str, Cell] = {}
    cells |= dict.fromkeys(send.split(), Cell("send"))
    cells |= {target: Cell("translate", how, _HOW[how]) for target, how in (translate or {}).items()}
    cells |= {target: Cell("emulate", words=words) for target, words in (emulate or {}).items()}
    cells |= dict.fromkeys(leave_out.split(), Cell("leave out"))
    cells |= dict.fromkeys(refuse.split(), Cell("refuse"))
    assert cells.keys() <= TARGETS.keys(), f"{name}: unknown target"
    return Parameter(name=name, kind=kind, cells=cells, **more)


def canonical_row(name: str, kind: Kind, wires: Mapping[str, str] = {}, **more: Any) -> Parameter:
    """Make a row for a field of `Parameters`; the encoder of the target knows its name."""
    return row(name, kind, field=name, wires=wires, **more)


def own_rows(wire: str, kind: Kind, names: str, example: Any, *, send: str = "", **more: Any) -> tuple[Parameter, ...]:
    """Make rows for fields that only one wire's own vendors know."""
    sends = send or " ".join(name for name, target in TARGETS.items() if target.wire == wire)
    return tuple(row(name, kind, send=sends, wires={wire: name}, example=example, **more) for name in names.split())


def everywhere(path: str) -> dict[str, str]:
    return {CHAT: path, RESPONSES: path, ANTHROPIC: path, GEMINI: path, COHERE: path}
