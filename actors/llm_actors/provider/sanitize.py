"""Makes a vendor's messages safe to pass on, and logs what is unusual in them.

Keys are removed from texts, and numbers that clients cannot read are dropped. Each unusual feature is logged once,
because it tends to be in every response.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import final

import msgspec

from llm_protocol.adjustments import Adjustment
from llm_protocol.dialect import ModelInfo
from llm_protocol.events import Finished, Started
from llm_protocol.failures import Failure
from llm_protocol.secret import Secret, redact, redact_name

MOST_CHARACTERS = 500
"""The most characters of a vendor's code, field name, model name or id."""

LARGEST_NUMBER = 2**53
"""Larger numbers in a model list are dropped, because not every client can read them."""


def clean_failure(failure: Failure, key: Secret | None) -> Failure:
    """Return the failure with keys removed from the vendor's texts."""
    return msgspec.structs.replace(
        failure,
        message=_clean(failure.message, key) or "",
        param=_short(_clean(failure.param, key)),
        upstream_code=_short(_clean(failure.upstream_code, key)),
    )


def clean_start(event: Started, provider: str, key: Secret | None, adjusted: tuple[Adjustment, ...] = ()) -> Started:
    """Return the event with keys removed, and with the provider and the adjustments, which a dialect does not know."""
    return Started(
        model=_clean_name(event.model, key) or "",
        upstream_id=_clean_name(event.upstream_id, key),
        provider=provider,
        adjusted=adjusted,
    )


def clean_end(end: Finished, key: Secret | None) -> Finished:
    """Return the end of a response with keys removed from the vendor's finish reason."""
    reason = _clean_name(end.raw_reason, key)
    return end if reason == end.raw_reason else msgspec.structs.replace(end, raw_reason=reason)


def clean_models(models: tuple[ModelInfo, ...], key: Secret | None) -> list[ModelInfo]:
    """Return the models whose names can be used, without numbers that clients cannot read."""
    return [
        msgspec.structs.replace(
            model,
            owned_by=_clean_name(model.owned_by, key) or "",
            created=model.created if abs(model.created) <= LARGEST_NUMBER else 0,
            context_window=_size(model.context_window),
            max_output_tokens=_size(model.max_output_tokens),
        )
        for model in models
        if model.id == _clean_name(model.id, key)
    ]


def _size(number: int | None) -> int | None:
    return number if number is not None and 0 <= number <= LARGEST_NUMBER else None


def _clean(text: str | None, key: Secret | None) -> str | None:
    if text is None:
        return None
    return redact(text if key is None else key.struck_from(text))


def _clean_name(text: str | None, key: Secret | None) -> str | None:
    if text is None:
        return None
    return redact_name(text if key is None else key.struck_from(text))[:MOST_CHARACTERS]


def _short(text: str | None) -> str | None:
    return text and text[:MOST_CHARACTERS]


log = logging.getLogger(__name__)

MOST_ODDITIES = 100
"""The most lines logged for one provider. The limit is needed because the texts come from the vendor."""


@final
class Oddities:
    """Logs the unusual features of one provider, each only once. Values of fields are never logged, because they may
    contain a prompt.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._reported: set[tuple[str, str]] = set()

    def note_fields(self, names: Iterable[str]) -> None:
        """Log fields that were left out of a response because their type was unexpected."""
        for name in names:
            if self._is_new("field", name):
                log.warning("%s: the field %s has an unexpected type and is ignored", self._provider, name)

    def note_reason(self, reason: str) -> None:
        """Log an unknown finish reason. The response is used nevertheless."""
        if self._is_new("reason", reason):
            log.warning("%s: unknown finish reason %r; the response is used", self._provider, reason)

    def note_not_found(self, url: str) -> None:
        """Log a 404, which most often means a wrong ``base_url``. ``url`` must have no query: it may contain a key."""
        if self._is_new("not found", url):
            log.warning("%s: HTTP 404 at %s; is base_url the address of the vendor's API?", self._provider, url)

    def _is_new(self, kind: str, word: str) -> bool:
        if (kind, word) in self._reported or len(self._reported) >= MOST_ODDITIES:
            return False
        self._reported.add((kind, word))
        return True
