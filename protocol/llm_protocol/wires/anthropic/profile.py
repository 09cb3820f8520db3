"""What each Claude model takes, as data: the first row whose pattern is found in the model's name counts.

Names come with prefixes and dates (``us.anthropic.claude-opus-4-6-v1``, ``claude-sonnet-4-5-20250929``), so patterns
are searched, not matched. A Claude that no row knows is taken to be newer than the table. A name without "claude"
belongs to a compatible server: it is asked as an old Claude would be, and says itself what it does not take.
"""

from __future__ import annotations

import re

import msgspec


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes."""

    max_output_tokens: int = 128_000
    sampling: bool = False
    """Other values than the defaults for ``temperature``, ``top_p`` and ``top_k``."""
    prefill: bool = False
    """A conversation that ends with the beginning of the answer."""
    thinking_budget: bool = False
    """``thinking: {"type": "enabled", "budget_tokens": …}``."""
    adaptive_thinking: bool = True
    effort: bool = True
    """``output_config.effort``."""
    mid_system: bool = True
    """Messages of role ``system`` among the others."""


def _before_4_6(max_output_tokens: int, *, thinking: bool = True, effort: bool = False) -> Capabilities:
    return Capabilities(
        max_output_tokens=max_output_tokens,
        sampling=True,
        prefill=True,
        thinking_budget=thinking,
        adaptive_thinking=False,
        effort=effort,
        mid_system=False,
    )


NEWEST = Capabilities()
_TABLE: tuple[tuple[re.Pattern[str], Capabilities], ...] = tuple(
    (re.compile(pattern), row)
    for pattern, row in (
        (r"claude-(opus|sonnet)-4-6", Capabilities(sampling=True, thinking_budget=True, mid_system=False)),
        (r"claude-opus-4-7", Capabilities(mid_system=False)),
        (r"claude-opus-4-5", _before_4_6(64_000, effort=True)),
        (r"claude-opus-4(-[01]|-2025|@|-v|$)", _before_4_6(32_000)),
        (r"claude-(sonnet|haiku)-4(-[05]|-2025|@|-v|$)", _before_4_6(64_000)),
        (r"claude-3-7", _before_4_6(64_000)),
        (r"claude-3-5", _before_4_6(8_192, thinking=False)),
        (r"claude-(3|2|instant)", _before_4_6(4_096, thinking=False)),
        (r"claude", NEWEST),
        (r"", _before_4_6(32_000)),
    )
)

DEFAULT_MAX_TOKENS = 16_384
"""Sent as ``max_tokens`` (at most the model's own limit) when the caller set none, because the vendor demands the
field. Below what the vendor answers without streaming, above nearly every answer; a thinking budget comes on top.
"""

MIN_THINKING_BUDGET = 1_024

BUDGET_OF_EFFORT = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 24_576, "max": 31_999}
"""The thinking budget that stands for an effort on models that count instead of grade."""


def capabilities(model: str) -> Capabilities:
    """What ``model`` takes."""
    name = model.lower().replace(".", "-")
    return next(row for pattern, row in _TABLE if pattern.search(name))


def accepts_prefill(model: str) -> bool:
    """Whether ``model`` goes on writing an assistant message that stands last in the conversation."""
    return capabilities(model).prefill
