"""Fields of a response that only its own wire knows, such as log probabilities, annotations, audio, and fields that
vendors add later.

A decoder keeps the unread fields of each object, by the place of the object (``message``, ``choice``, ``body``), and
reports them in `FieldsAdded`. They are kept beside the canonical response, by dialect and then by place. The encoder of
the same wire adds them to its output, except where the output already has a field of that name. Other wires ignore
them. Streams deliver them in pieces, which `merge` joins.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from copy import deepcopy
from typing import Any, TypeAlias, final

import msgspec

from llm_protocol.codec.json import JsonDecoder, TooLarge, WireError, decode_json
from llm_protocol.codec.lenient import read_object
from llm_protocol.content import JsonObject
from llm_protocol.events import FieldsAdded

JOINED = frozenset(("data", "text", "summary", "transcript"))
"""The names of strings that arrive in pieces. All other strings (ids, types, names of formats) are complete
each time.
"""


LATEST = frozenset(("groundingMetadata", "citationMetadata", "urlContextMetadata", "safetyRatings"))
"""Fields that Gemini repeats in several chunks. Each time they contain all that Gemini knows at that time."""


def merge(into: JsonObject, piece: JsonObject) -> None:
    """Add ``piece`` to ``into``. Lists grow, and so do strings in `JOINED`. Everything else is replaced, including
    the fields in `LATEST`. ``None`` is ignored.

    Members of lists that have an ``index`` are pieces of the member with that index. ``into`` is changed and shares
    nothing with ``piece``.
    """
    for name, value in piece.items():
        known = into.get(name)
        if value is None:
            into.setdefault(name, None)
        elif name in LATEST:
            into[name] = deepcopy(value)
        elif isinstance(value, dict):
            if not isinstance(known, dict):
                known = into[name] = {}
            merge(known, value)
        elif isinstance(value, list):
            if not isinstance(known, list):
                known = into[name] = []
            _extend(known, value)
        elif isinstance(value, str) and isinstance(known, str) and name in JOINED:
            into[name] = known + value
        else:
            into[name] = value


def _extend(known: list[Any], more: list[Any]) -> None:
    for item in more:
        if not isinstance(item, dict):
            known.append(item)
            continue
        index = item.get("index")
        same = next((one for one in known if _is_piece(one, index, item)), None)
        if same is None:
            same = {}
            known.append(same)
        merge(same, item)


def _is_piece(one: Any, index: object, item: JsonObject) -> bool:
    if not isinstance(one, dict) or not isinstance(index, int) or one.get("index") != index:
        return False
    # OpenRouter counts summaries, texts and encrypted payloads of reasoning together, and from 0 each time.
    return "type" not in item or "type" not in one or item["type"] == one["type"]


def grows(value: Any) -> bool:
    """Whether merging the same value once more would change the result."""
    if isinstance(value, dict):
        return any(grows(inner) or name in JOINED for name, inner in value.items())
    return isinstance(value, list) and bool(value)


def is_empty(value: Any) -> bool:
    """Whether a field is empty: many servers send fields that they do not use, with an empty value."""
    return value is None or value == "" or (isinstance(value, list | dict) and not value)


# ---------------------------------------------------------------- kept fields


def rest_of(value: Any, known: Container[str]) -> JsonObject:
    """The fields of an object that are not ``known`` and not null; empty if the value is not an object."""
    if not isinstance(value, dict):
        return {}
    return {name: inner for name, inner in value.items() if name not in known and not is_empty(inner)}


Shape: TypeAlias = Mapping[str, "Shape | None"]
"""The names of the fields that are read of an object. A field that is itself an object, of which only some fields are
read, has a shape in place of ``None``.
"""


def beyond(value: Any, shape: Shape) -> JsonObject:
    """The fields of an object that are not in ``shape``, at any depth."""
    rest = rest_of(value, shape)
    for name, inner in shape.items() if isinstance(value, dict) else ():
        if inner is not None and name in value and (more := beyond(value[name], inner)):
            rest[name] = more
    return rest


def shape_of(*names: str, **inner: tuple[str, ...]) -> Shape:
    """Return the shape with the fields ``names``, and with the objects ``inner``, each given by the names of its
    fields.
    """
    return {**dict.fromkeys(names), **{name: dict.fromkeys(fields) for name, fields in inner.items()}}


@final
class KeptFields:
    """The unread fields of one response. A field is reported again only if its value has changed."""

    __slots__ = ("_dialect", "_kept", "_new")

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._kept: dict[tuple[str, str], Any] = {}
        self._new: dict[str, JsonObject] = {}

    def keep(self, place: str, value: Any, known: Container[str] = ()) -> None:
        """Keep the fields of the object ``value`` that are not ``known``. ``place`` says where in the response the
        object is, such as ``message``.
        """
        for name, inner in (rest_of(value, known) if value else {}).items():
            if self._kept.get((place, name)) != inner:
                self._kept[place, name] = inner
                self._new.setdefault(place, {})[name] = inner

    def take_events(self) -> list[FieldsAdded]:
        """Return an event with the fields that were kept since the last call; no event if there are none."""
        new, self._new = self._new, {}
        return [FieldsAdded(self._dialect, new)] if new else []


_OUTER = JsonDecoder(dict[str, msgspec.Raw])


def outer_fields(text: bytes | str | JsonObject, read: Container[str] = (), but: Container[str] = ()) -> JsonObject:
    """Decode the fields of the object in ``text`` that are not in ``but``, and also those in ``read``. The other
    fields, which may be long, are skipped. An object that is decoded already is accepted, too. Raises `WireError`.
    """
    if isinstance(text, dict):
        return {name: value for name, value in text.items() if name in read or name not in but}
    try:
        fields = _OUTER.decode(text)
    except TooLarge:
        raise
    except WireError:
        return outer_fields(read_object(text), read, but)
    return {name: decode_json(bytes(raw)) for name, raw in fields.items() if name in read or name not in but}


def filled(ours: JsonObject, kept: Mapping[str, Any] | None) -> JsonObject:
    """Return ``ours`` with the kept fields added, object by object. If both have a field, the value in ``ours`` is
    used.
    """
    if not kept:
        return ours
    whole = {**kept, **ours}
    for name, value in ours.items():
        other = kept.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            whole[name] = filled(value, other)
    return whole
