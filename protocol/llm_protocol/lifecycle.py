"""The shutdown dates of models: dates in the vendor's model list, and dates that vendors announce in other places.
Pure.

The date in the list is used rather than the date in the table here, because vendors move dates. The table is for lists
without dates (Gemini's, Cohere's, and those of older servers), and for models that only the configuration names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Final

from llm_protocol.dialect import ModelInfo

NOTICE: Final = timedelta(days=90)
"""The time before a shutdown in which a model causes a warning, and `auto` chooses another model if possible."""

_OPENAI: Final = {
    date(2026, 10, 23): (
        "gpt-3.5-turbo gpt-4 gpt-4-turbo gpt-4-1106-preview gpt-4.1-nano gpt-4o-2024-05-13 gpt-image-1 o1 o1-pro "
        "o3-mini o4-mini"
    ),
    date(2026, 12, 1): "gpt-image-1-mini gpt-image-1.5 chatgpt-image-latest",
    date(2026, 12, 11): "gpt-5 gpt-5-mini gpt-5-nano gpt-5-pro o3 o3-pro",
    date(2027, 1, 14): "gpt-4o gpt-4o-mini gpt-4.1 gpt-4.1-mini",
    date(2027, 4, 1): "gpt-5.1 gpt-5.3-codex gpt-5.4-nano",
}
_ANTHROPIC: Final = {
    date(2026, 6, 15): "claude-sonnet-4 claude-sonnet-4-0 claude-opus-4 claude-opus-4-0",
    date(2026, 8, 5): "claude-opus-4-1",
    date(2026, 11, 30): "claude-sonnet-4-5",
    date(2027, 1, 22): "claude-opus-4-5",
}
_GEMINI: Final = {
    date(2026, 3, 9): "gemini-3-pro-preview",
    date(2026, 6, 1): "gemini-2.0-flash gemini-2.0-flash-001 gemini-2.0-flash-lite gemini-2.0-flash-lite-001",
    date(2026, 6, 25): "gemini-3.1-flash-image-preview gemini-3-pro-image-preview",
    date(2026, 10, 2): "gemini-2.5-flash-image",
    # They respond afterwards, but with another model, at another price.
    date(2026, 12, 1): "gemini-2.5-pro gemini-2.5-flash",
    date(2027, 5, 7): "gemini-3.1-flash-lite",
}
_CEREBRAS: Final = {
    date(2026, 11, 29): "zai-glm-4.7",  # when it was found to be gone
}


def _by_model(ends: Mapping[date, str]) -> dict[str, date]:
    return {model: day for day, models in ends.items() for model in models.split()}


# From the vendors' deprecation pages, read 29 November 2026: developers.openai.com/api/docs/deprecations,
# platform.claude.com/docs/en/about-claude/model-deprecations, ai.google.dev/gemini-api/docs/deprecations,
# inference-docs.cerebras.ai/support/deprecation. A name stands for its dated snapshots too.
SHUTDOWNS: Final[Mapping[str, Mapping[str, date]]] = {
    "openai": _by_model(_OPENAI),
    "anthropic": _by_model(_ANTHROPIC),
    "gemini": _by_model(_GEMINI),
    "cerebras": _by_model(_CEREBRAS),
}

SNAPSHOT: Final = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
"""The date at the end of a snapshot's name."""


def is_same_model(reported: str, model: str) -> bool:
    """Whether the model name in a response, if any, is the requested one, or a snapshot of it."""
    if not reported or reported == model:
        return True
    one, other = (SNAPSHOT.sub("", name.rpartition("/")[2]) for name in (reported, model))
    return one == other


_TUNED = re.compile(r"ft:([^:]+):")


def shutdown_date(kind: str, info: ModelInfo) -> date | None:
    """The day from which the vendor (of the kind ``kind``) refuses the model; ``None`` if none is announced."""
    if info.shutdown_date is not None:
        return info.shutdown_date
    known = SHUTDOWNS.get(kind)
    if known is None:
        return None
    tuned = _TUNED.match(info.id)  # it ends with the model that it was made from
    name = tuned[1] if tuned else info.id
    return known.get(name) or known.get(SNAPSHOT.sub("", name))


def is_gone(kind: str, info: ModelInfo, today: date) -> bool:
    """Whether the vendor of ``kind`` has retired the model, or the model's shutdown date is ``today`` or earlier."""
    end = shutdown_date(kind, info)
    return info.lifecycle == "retired" or (end is not None and end <= today)


def is_ending(kind: str, info: ModelInfo, today: date) -> bool:
    """Whether the model is gone, will be shut down within `NOTICE`, or is deprecated without a date."""
    end = shutdown_date(kind, info)
    if end is None:
        return info.lifecycle != "active"
    return info.lifecycle == "retired" or end <= today + NOTICE


def ending(kind: str, info: ModelInfo, today: date) -> str | None:
    """Return the warning about a model that `is_ending`, as the end of a sentence about it: ``shuts down on 2026-12-31,
    in 31 days``. ``None`` for any other model.
    """
    if not is_ending(kind, info, today):
        return None
    end = shutdown_date(kind, info)
    if end is None:
        return "is retired" if info.lifecycle == "retired" else "is deprecated"
    if end <= today or info.lifecycle == "retired":
        return f"was shut down on {end}" if end <= today else "is retired"
    days = (end - today).days
    return f"shuts down on {end}, in {days} day{'s' * (days != 1)}"
