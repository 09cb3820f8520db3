"""A peer's JSON: understood, or refused with one error, `WireError`, however odd the input."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from llm_protocol.content import JsonObject

T = TypeVar("T")

MAX_BODY_BYTES = 256 * 1024 * 1024
"""A whole JSON body may have this many bytes, whatever the configuration allows."""

MAX_KEYS = 50_000
"""A JSON text may have this many keys: as plain objects each costs over a hundred bytes. Long model lists fit."""


MAX_DEPTH = 256
"""A JSON text may be nested so deeply: whoever walks it, or writes it again, has fewer frames left than its reader."""


class WireError(ValueError):
    """A peer's bytes could not be understood. The text says why and where, and holds none of the bytes."""


class TooLarge(WireError):  # noqa: N818  (it says what is wrong, as its base does)
    """A peer's bytes were understood so far, and are more than a limit allows."""


class JsonDecoder(Generic[T]):
    r"""Decodes JSON text into ``T``; make one per shape and keep it.

    Lone surrogates (``"\ud83d"`` cut from its other half, as tokenisers produce) become U+FFFD. NaN, Infinity, too
    deep nesting, and the wrong types raise `WireError`.
    """

    __slots__ = ("_fast", "_limit", "_type")

    def __init__(self, type_: type[T], *, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._fast = msgspec.json.Decoder(type_)
        self._type = type_
        self._limit = max_bytes

    def decode(self, data: bytes | str) -> T:
        """The value. Raises `WireError`."""
        if len(data) > self._limit:
            raise TooLarge(f"the JSON text is longer than {self._limit} bytes")
        if len(data) > 2 * MAX_KEYS and _too_many_keys(data):
            raise TooLarge(f"the JSON text has more than {MAX_KEYS} keys")
        if len(data) > 2 * MAX_DEPTH and _too_deep(data):
            raise WireError(_DEEP)
        try:
            return self._fast.decode(data)
        except msgspec.ValidationError as exc:
            raise WireError(_without_values(str(exc))) from None
        except RecursionError:
            raise WireError(_DEEP) from None
        except (msgspec.DecodeError, UnicodeError):
            return self._decode_tolerantly(data)

    def _decode_tolerantly(self, data: bytes | str) -> T:
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
            return msgspec.convert(scrub(value), self._type)
        except msgspec.ValidationError as exc:
            raise WireError(_without_values(str(exc))) from None
        except RecursionError:
            raise WireError(_DEEP) from None
        except ValueError:
            raise WireError("the text is not JSON") from None


_KEY_END = re.compile(rb'(?<!\\)(?:\\\\)*"[ \t\r\n]*:')
"""The quote that ends a key: one within a text is escaped."""


def _too_many_keys(data: bytes | str) -> bool:
    text = data if isinstance(data, bytes) else data.encode("utf-8", "replace")
    return text.count(b":") > MAX_KEYS and sum(1 for _ in _KEY_END.finditer(text)) > MAX_KEYS


_DEEP = "the JSON text is nested too deeply"
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+', re.DOTALL)
"""A text, also one without an end: else its rest would be searched again from each quote in it."""
_STEPS = bytes(1 if mark in b"[{" else 255 for mark in range(256))
"""Of what opens, 1, of what closes, -1 as a signed byte."""
_FLAT = bytes(mark for mark in range(256) if mark not in b"[]{}")


def _too_deep(data: bytes | str) -> bool:
    text = data if isinstance(data, bytes) else data.encode("utf-8", "replace")
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    steps = memoryview(_STRING.sub(b"", text).translate(_STEPS, _FLAT)).cast("b")
    return max(accumulate(steps), default=0) > MAX_DEPTH


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _without_values(message: str) -> str:
    """The error text of msgspec with quoted values taken out: they may be a prompt's."""
    return re.sub(r"'[^']*'", "'…'", message)[:300]


_ANY: JsonDecoder[Any] = JsonDecoder(object)
_OBJECT: JsonDecoder[JsonObject] = JsonDecoder(dict[str, Any])
_ENCODER = msgspec.json.Encoder()


def decode_json(data: bytes | str) -> Any:
    """Any JSON value. Raises `WireError`."""
    return _ANY.decode(data)


def decode_object(data: bytes | str) -> JsonObject:
    """A JSON object. Raises `WireError`."""
    return _OBJECT.decode(data)


def encode_json(value: object) -> bytes:
    """The JSON bytes of structs, dicts and lists. Lone surrogates become U+FFFD."""
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError:
        return _ENCODER.encode(scrub(msgspec.to_builtins(value)))


def scrub(value: Any) -> Any:
    """A decoded JSON value without lone surrogates."""
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list() | tuple():
            return [scrub(item) for item in value]
        case dict():
            return {scrub(key): scrub(item) for key, item in value.items()}
        case _:
            return value


def json_text(value: JsonObject) -> str:
    """A JSON object as text, for the wires that carry JSON inside strings."""
    return encode_json(value).decode()
