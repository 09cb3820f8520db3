"""Choose the vendor's model for `auto`, with the rows in `Vendor.default_models`. Pure.

A row is a pattern for a whole name, so the row ``gpt-5`` does not match ``gpt-5-codex``. The first row with an
available model is used. Of several models that match this row, the one with the latest shutdown is chosen, then the
newest one. Models without a row come last, and only if their names do not indicate another purpose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Final, NamedTuple

from llm_protocol.dialect import ModelInfo
from llm_protocol.lifecycle import SNAPSHOT, is_ending, is_gone, shutdown_date
from llm_protocol.model_rules import NOTHING, ModelRules, Needs, has, needs_of
from llm_protocol.requests import AnyRequest, RequestType
from llm_protocol.vendor import Vendor


class Want(NamedTuple):
    """The criteria of `auto`."""

    request_type: RequestType
    needs: Needs = NOTHING


@lru_cache(maxsize=256)
def _rows(vendor: Vendor, wanted: RequestType) -> tuple[re.Pattern[str], ...]:
    dated = r"(?:-\d{4}-\d\d-\d\d|-\d{8}|-\d\d-\d{4}|-latest)?"
    return tuple(re.compile(pattern + dated) for pattern in vendor.default_models.get(wanted, ()))


_CHAT = RequestType.CHAT
_EMBEDDING = RequestType.EMBEDDING
_IMAGE = RequestType.IMAGE_GENERATION

_OTHER_USES: Final = re.compile(
    r"(?:^|[^a-z])(?:audio|realtime|live|tts|speech|transcribe|whisper|translate|vision|image|imagen|dall|veo|sora|lyria"
    r"|banana|embed|embedding|rerank|moderation|guard|safeguard|search|research|computer|codex|code|robotics|cyber"
    r"|rosalind|omni|aqa|customtools|turbo-instruct|babbage|davinci|parse|ocr)(?:[^a-z]|$)"
)
"""Words in a name that show that the model is not for text conversations."""

_NUMBER = re.compile(r"(?<![\da-z])\d{1,3}(?![\da-z])")
_UNFINISHED = re.compile(r"-(preview|exp|experimental|beta|nightly)\b")


def want_of(request: AnyRequest) -> Want:
    """Return the features that ``request`` needs of its model, for `auto`."""
    return Want(request.request_type, needs_of(request))


def choose(
    vendor: Vendor, rules: ModelRules, want: Want, models: Sequence[ModelInfo], today: date, *, in_order: bool = False
) -> ModelInfo | None:
    """Return the one of ``models`` that `auto` means on ``today``; ``None`` if none of them is suitable.

    With ``in_order``, the order of ``models`` is deliberate: the first suitable model is returned. A suitable model is
    not shut down, has no other purpose, and has the features that the request needs.
    """
    kind = vendor.facts_key
    wanted = want.request_type if want.request_type in (_EMBEDDING, _IMAGE) else _CHAT
    left = [info for info in models if not is_gone(kind, info, today) and _takes(info, want.request_type)]
    if in_order:
        fitting = [info for info in left if not _is_foreign(vendor, wanted, _seeing(info.id, want))] or left
        return next((info for info in fitting if _has(rules, info, want)), fitting[0] if fitting else None)
    ranked = [(rank, info) for info in left if (rank := _rank(vendor, rules, wanted, info, today, want)) is not None]
    return min(ranked, key=lambda each: each[0])[1] if ranked else None


def _has(rules: ModelRules, info: ModelInfo, want: Want) -> bool:
    return has(rules.of(info.id), want.needs, responses=rules.has_responses)


def _seeing(model: str, want: Want) -> str:
    """Return the name by which the purpose of a model is judged. If the request has images, "vision" in a name does
    not indicate another purpose; the same holds for audio.
    """
    name = model.replace("-vision", "") if want.needs.vision else model
    return name.replace("-audio", "") if want.needs.audio else name


def _takes(info: ModelInfo, request_type: RequestType) -> bool:
    return info.request_types is None or request_type in info.request_types


@lru_cache(maxsize=4096)
def _row(vendor: Vendor, wanted: RequestType, model: str) -> int | None:
    rows = _rows(vendor, wanted)
    if wanted is _CHAT and _OTHER_USES.search(model):
        return None
    return next((place for place, row in enumerate(rows) if row.fullmatch(model)), None)


@lru_cache(maxsize=4096)
def _purpose(vendor: Vendor, model: str) -> RequestType | None:
    """Return the purpose of a model, as far as its name shows it."""
    return next((each for each in (_EMBEDDING, _IMAGE, _CHAT) if _row(vendor, each, model) is not None), None)


def _is_foreign(vendor: Vendor, wanted: RequestType, model: str) -> bool:
    """Whether the model's name indicates another purpose."""
    if _row(vendor, wanted, model) is not None:
        return False
    return _purpose(vendor, model) not in (None, wanted) or _OTHER_USES.search(model) is not None


def _rank(
    vendor: Vendor, rules: ModelRules, wanted: RequestType, info: ModelInfo, today: date, want: Want
) -> tuple[bool, bool, bool, int, int, bool, tuple[int, ...], bool, int] | None:
    """Return a sort key: the lowest model is chosen. ``None`` for a model that is never chosen."""
    kind, name = vendor.facts_key, _seeing(info.id, want)
    rows, row = _rows(vendor, wanted), _row(vendor, wanted, name)
    foreign = _is_foreign(vendor, wanted, name)
    if foreign and not vendor.generic:
        return None
    end = shutdown_date(kind, info)
    known = row is not None
    numbers = [-int(number) for number in _NUMBER.findall(SNAPSHOT.sub("", info.id))[:4]] if known else []
    return (
        foreign,
        not _has(rules, info, want),
        is_ending(kind, info, today),
        row if row is not None else len(rows),
        -(end or date.max).toordinal(),
        known and bool(_UNFINISHED.search(info.id)),
        (*numbers, *[0] * (4 - len(numbers))),
        known and bool(SNAPSHOT.search(info.id)),
        -info.created if known else 0,
    )
