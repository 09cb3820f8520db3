"""Which of a vendor's models `auto` means: one table of preferences per vendor and request type. Pure.

A row is a pattern for a whole name, so that ``gpt-5`` is not ``gpt-5-codex`` and ``command-a`` not a translator. The
first row of which a model is left wins; within a row, what lives longest, then the newest version. What no row knows
comes last, and only if its name does not say that it is for something else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Final, NamedTuple

from llm_protocol.dialect import ModelInfo
from llm_protocol.lifecycle import SNAPSHOT, is_ending, is_gone, shutdown_date
from llm_protocol.model_rules import ModelRules
from llm_protocol.needs import NOTHING, Needs, has, needs_of
from llm_protocol.requests import AnyRequest, LLMProvider, RequestType


class Want(NamedTuple):
    """What `auto` chooses a model by."""

    request_type: RequestType
    needs: Needs = NOTHING


def _rows(*patterns: str) -> tuple[re.Pattern[str], ...]:
    dated = r"(?:-\d{4}-\d\d-\d\d|-\d{8}|-\d\d-\d{4}|-latest)?"
    return tuple(re.compile(pattern + dated) for pattern in patterns)


_CHAT = RequestType.CHAT
_EMBEDDING = RequestType.EMBEDDING
_IMAGE = RequestType.IMAGE_GENERATION

PREFERENCES: Final[dict[tuple[LLMProvider, RequestType], tuple[re.Pattern[str], ...]]] = {
    # Small models first: who wants a dear one can name it.
    (LLMProvider.OPENAI, _CHAT): _rows(
        r"gpt-[\d.]+-luna",
        r"gpt-[\d.]+-terra",
        r"gpt-5\.[45]-mini",
        r"gpt-5-mini",
        r"gpt-[\d.]+-sol",
        r"gpt-5\.[0-5]",
        r"gpt-5",
        r"gpt-4o-mini",
        r"gpt-4\.1-mini",
        r"gpt-4o",
        r"gpt-4\.1",
        r"gpt-[\d.]+-nano",
        r"gpt-[\d.]+-astra",
        r"gpt-\d[\d.]*",
        r"gpt-4-turbo",
        r"gpt-3\.5-turbo",
        r"o\d(-mini)?",
    ),
    # One model for good: the vectors of two cannot be compared.
    (LLMProvider.OPENAI, _EMBEDDING): _rows(
        r"text-embedding-3-small", r"text-embedding-3-large", r"text-embedding-ada-\d+", r".*embed.*"
    ),
    (LLMProvider.OPENAI, _IMAGE): _rows(
        r"gpt-image-[\d.]+-flare", r"gpt-image-[\d.]+-sunburst", r"gpt-image-[\d.]+", r".*image.*", r"dall-e-\d"
    ),
    (LLMProvider.ANTHROPIC, _CHAT): _rows(
        r"claude-sonnet-\d+(-\d{1,2})?", r"claude-haiku-\d+(-\d{1,2})?", r"claude-opus-\d+(-\d{1,2})?", r"claude-.*"
    ),
    (LLMProvider.GEMINI, _CHAT): _rows(
        r"gemini-flash",
        r"gemini-[\d.]+-flash",
        r"gemini-flash-lite",
        r"gemini-[\d.]+-flash-lite",
        r"gemini-pro",
        r"gemini-[\d.]+-pro",
        r"gemini-[\d.]+-[a-z]+",
        r"gemini-.*",
        r"gemma-.*",
    ),
    (LLMProvider.GEMINI, _EMBEDDING): _rows(r"gemini-embedding-001", r"gemini-embedding-\d", r".*embed.*"),
    (LLMProvider.GEMINI, _IMAGE): _rows(
        r"gemini-[\d.]+-flash-image", r"gemini-[\d.]+-pro-image", r"gemini-[\d.]+-flash-lite-image", r".*image.*"
    ),
    (LLMProvider.COHERE, _CHAT): _rows(
        r"command-a", r"command-a-plus", r"command-a-reasoning", r"command-r-plus", r"command-r", r"command-.*"
    ),
    (LLMProvider.COHERE, _EMBEDDING): _rows(r"embed-v4\.0", r"embed-v[\d.]+.*", r"embed-multilingual-.*", r".*embed.*"),
    (LLMProvider.CEREBRAS, _CHAT): _rows(r"gpt-oss-120b", r"qwen-[\d.]+-\d+b", r"gpt-oss-.*"),
    # Whatever such a server has; but none of its chat models embeds.
    (LLMProvider.OPENAI_COMPATIBLE, _EMBEDDING): _rows(r".*embed.*"),
    (LLMProvider.OPENAI_COMPATIBLE, _IMAGE): _rows(r".*(image|diffusion|flux|dall-e).*"),
}
"""`auto` by vendor and request type; completions and code go by chat's rows."""

_OTHER_USES: Final = re.compile(
    r"(?:^|[^a-z])(?:audio|realtime|live|tts|speech|transcribe|whisper|translate|vision|image|imagen|dall|veo|sora|lyria"
    r"|banana|embed|embedding|rerank|moderation|guard|safeguard|search|research|computer|codex|code|robotics|cyber"
    r"|rosalind|omni|aqa|customtools|turbo-instruct|babbage|davinci|parse|ocr)(?:[^a-z]|$)"
)
"""Words by which a name says that the model is not for conversations in text."""

_NUMBER = re.compile(r"(?<![\da-z])\d{1,3}(?![\da-z])")
_UNFINISHED = re.compile(r"-(preview|exp|experimental|beta|nightly)\b")


def want_of(request: AnyRequest) -> Want:
    """What ``request`` wants of its model."""
    return Want(request.request_type, needs_of(request))


def choose(
    rules: ModelRules, want: Want, models: Sequence[ModelInfo], today: date, *, in_order: bool = False
) -> ModelInfo | None:
    """The one of ``models`` that `auto` means on ``today``; ``None`` when none of them will do.

    With ``in_order`` somebody has put them in order: the first wins that is not gone, not for something else, and has
    what the request needs.
    """
    kind = rules.vendor
    wanted = want.request_type if want.request_type in (_EMBEDDING, _IMAGE) else _CHAT
    left = [info for info in models if not is_gone(kind, info, today) and _takes(info, want.request_type)]
    if in_order:
        fitting = [info for info in left if not _is_foreign(kind, wanted, _seeing(info.id, want))] or left
        return next((info for info in fitting if has(rules.of(info.id), want.needs)), fitting[0] if fitting else None)
    ranked = [(rank, info) for info in left if (rank := _rank(rules, wanted, info, today, want)) is not None]
    return min(ranked, key=lambda each: each[0])[1] if ranked else None


def _seeing(model: str, want: Want) -> str:
    """The name as it is judged: for who shows pictures, a model that sees is for nothing else."""
    return model.replace("-vision", "") if want.needs.vision else model


def _takes(info: ModelInfo, request_type: RequestType) -> bool:
    return info.request_types is None or request_type in info.request_types


@lru_cache(maxsize=4096)
def _row(kind: LLMProvider, wanted: RequestType, model: str) -> int | None:
    rows = PREFERENCES.get((kind, wanted), ())
    if wanted is _CHAT and _OTHER_USES.search(model):
        return None
    return next((place for place, row in enumerate(rows) if row.fullmatch(model)), None)


@lru_cache(maxsize=4096)
def _purpose(kind: LLMProvider, model: str) -> RequestType | None:
    """What the model is for, as far as its name says."""
    return next((each for each in (_EMBEDDING, _IMAGE, _CHAT) if _row(kind, each, model) is not None), None)


def _is_foreign(kind: LLMProvider, wanted: RequestType, model: str) -> bool:
    """Whether the model's name says that it is for something else."""
    if _row(kind, wanted, model) is not None:
        return False
    return _purpose(kind, model) not in (None, wanted) or _OTHER_USES.search(model) is not None


def _rank(
    rules: ModelRules, wanted: RequestType, info: ModelInfo, today: date, want: Want
) -> tuple[bool, bool, bool, int, int, bool, tuple[int, ...], bool, int] | None:
    """The less, the better; ``None`` for what is never chosen."""
    kind, name = rules.vendor, _seeing(info.id, want)
    rows, row = PREFERENCES.get((kind, wanted), ()), _row(kind, wanted, name)
    foreign = _is_foreign(kind, wanted, name)
    if foreign and kind is not LLMProvider.OPENAI_COMPATIBLE:
        return None
    end = shutdown_date(kind, info)
    known = row is not None
    numbers = [-int(number) for number in _NUMBER.findall(SNAPSHOT.sub("", info.id))[:4]] if known else []
    return (
        foreign,
        not has(rules.of(info.id), want.needs),
        is_ending(kind, info, today),
        row if row is not None else len(rows),
        -(end or date.max).toordinal(),
        known and bool(_UNFINISHED.search(info.id)),
        (*numbers, *[0] * (4 - len(numbers))),
        known and bool(SNAPSHOT.search(info.id)),
        -info.created if known else 0,
    )
