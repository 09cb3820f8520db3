"""Read a vendor's model list. Wires differ only in the names of the fields.

A field that is missing or has an unexpected type is left out. An entry without a name is skipped; a list in which no
entry has a name is an error. So a list with unknown additions remains usable.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import date
from typing import Any, final

from llm_protocol.codec.headers import day, rfc3339
from llm_protocol.codec.json import WireError, decode_object
from llm_protocol.content import JsonObject
from llm_protocol.dialect import ModelInfo, ModelPage
from llm_protocol.errors import ProtocolError
from llm_protocol.requests import RequestType

_YEAR_10_000 = 253_402_300_800
"""The largest valid time, in seconds since the epoch: the year 10,000. Larger values are errors."""


@final
class ModelEntry:
    """An entry of a model list, or an object in it."""

    def __init__(self, fields: object) -> None:
        self.fields: JsonObject = fields if isinstance(fields, dict) else {}

    def text(self, name: str) -> str:
        """The field as a string; empty if absent."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else ""

    def count(self, *names: str) -> int | None:
        """The first of the fields ``names`` that is a positive number; ``None`` if none is."""
        values = (self.fields.get(name) for name in names)
        counts = (int(value) for value in values if isinstance(value, int | float) and 1 <= value < 1e15)
        return next(counts, None)

    def flag(self, name: str) -> bool | None:
        """The field as a boolean; ``None`` if absent."""
        value = self.fields.get(name)
        return value if isinstance(value, bool) else None

    def texts(self, name: str) -> tuple[str, ...]:
        """The strings of the list in the field; empty if absent."""
        values: Any = self.fields.get(name)
        return tuple(each for each in values if isinstance(each, str)) if isinstance(values, list) else ()

    def day(self, name: str) -> date | None:
        """The day, in UTC, of a date or time; ``None`` if the field is neither."""
        return day(self.fields.get(name))

    def moment(self, name: str) -> int:
        """Seconds since the epoch, from a number or an RFC 3339 time; 0 if there is neither."""
        value = self.fields.get(name)
        seconds = rfc3339(value) if isinstance(value, str) else value
        is_sane = isinstance(seconds, int | float) and 0 <= seconds < _YEAR_10_000
        return int(seconds) if is_sane and seconds is not None else 0

    def object(self, name: str) -> ModelEntry:
        """The object in the field; an empty entry if absent."""
        return ModelEntry(self.fields.get(name))

    def request_types(self, name: str, meaning: Mapping[str, Collection[RequestType]]) -> frozenset[RequestType] | None:
        """Return the request types of the model, from the list in the field ``name``. ``meaning`` has the request types
        of each of the vendor's terms. ``None`` if there is no list; empty if none of its terms is known.
        """
        words: Any = self.fields.get(name)
        if not isinstance(words, list) or not words:
            return None
        return frozenset(each for word, types in meaning.items() if word in words for each in types)


def read_models(
    body: bytes,
    field: str,
    info: Callable[[ModelEntry], ModelInfo],
    next_page: Callable[[ModelEntry], str] = lambda _: "",
    *,
    may_be_missing: bool = False,
) -> ModelPage:
    """Read a page of a list. ``field`` contains the models; ``info`` reads one of them. Models without an id are
    skipped. ``next_page`` returns the argument for the request of the next page. ``may_be_missing``: an absent
    ``field`` means an empty list. Raises `ProtocolError` if the page cannot be read, or no model has an id.
    """
    try:
        page = decode_object(body)
        models = _models(page, field, info, may_be_missing=may_be_missing)
    except WireError as exc:
        raise ProtocolError(f"the vendor's model list cannot be decoded: {exc}") from None
    return ModelPage(models, next_page(ModelEntry(page)) or None)


def _models(
    page: JsonObject, field: str, info: Callable[[ModelEntry], ModelInfo], *, may_be_missing: bool
) -> tuple[ModelInfo, ...]:
    entries = page.get(field)
    if entries is None and (may_be_missing or field in page):
        return ()
    if not isinstance(entries, list):
        raise WireError(f"{field}: expected a list")
    models = tuple(model for entry in entries if (model := info(ModelEntry(entry))).id)
    if entries and not models:
        raise WireError(f"{field}: no entry has a name")
    return models
