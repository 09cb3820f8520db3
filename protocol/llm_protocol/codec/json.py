"""Decode a peer's JSON, or raise one exception, `WireError`, however malformed the input is."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from llm_protocol.codec.json_limits import DEEP, LIMITS, CheckedJson, JsonLimits, check_json, small_size
from llm_protocol.codec.json_limits import TooLarge as TooLarge
from llm_protocol.codec.json_limits import WireError as WireError
from llm_protocol.content import JsonObject

T = TypeVar("T")

MAX_BODY_BYTES = 256 * 1024 * 1024
"""The limit for a complete JSON body in bytes, whatever the configuration allows."""

MAX_TOLERATED_BYTES = 256 * 1024
"""The largest text, in bytes, that is decoded a second time, tolerantly: that is a hundred times slower."""


class JsonDecoder(Generic[T]):
    r"""Decodes JSON text into ``T``; make one per shape and keep it.

    Lone surrogates (``"\ud83d"`` cut from its other half, as tokenisers produce) and bytes that are not UTF-8 become
    U+FFFD. NaN, Infinity, wrong types and values beyond ``limits`` raise `WireError`.
    """

    __slots__ = ("_fast", "_limits", "_max_bytes", "_small", "_type")

    def __init__(self, type_: type[T], *, max_bytes: int = MAX_BODY_BYTES, limits: JsonLimits = LIMITS) -> None:
        self._fast = msgspec.json.Decoder(type_)
        self._type = type_
        self._max_bytes = max_bytes
        self._limits = limits
        self._small = min(max_bytes, small_size(limits))

    def decode(self, data: bytes | str) -> T:
        """Decode a value. Raises `WireError`, and `TooLarge` if it exceeds the limits."""
        if len(data) > self._small:
            if len(data) > self._max_bytes:
                raise TooLarge(f"the JSON text is longer than {self._max_bytes} bytes")
            if not isinstance(data, CheckedJson):
                check_json(data, self._limits)
        try:
            return self._fast.decode(data)
        except msgspec.ValidationError as exc:
            raise WireError(_without_values(str(exc))) from None
        except RecursionError:
            raise WireError(DEEP) from None
        except (msgspec.DecodeError, UnicodeError):
            return self._decode_tolerantly(data)

    def _decode_tolerantly(self, data: bytes | str) -> T:
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        try:
            if len(data) <= MAX_TOLERATED_BYTES:
                return msgspec.convert(
                    scrub(json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)), self._type
                )
            return self._fast.decode(without_lone_surrogates(text))
        except msgspec.ValidationError as exc:
            raise WireError(_without_values(str(exc))) from None
        except RecursionError:
            raise WireError(DEEP) from None
        except ValueError:
            raise WireError("the text is not JSON") from None


_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def without_lone_surrogates(text: str) -> str:
    """Return the JSON text with U+FFFD in place of each lone surrogate, escaped or not."""
    pieces: list[str] = []
    at = 0
    for found in _ESCAPE.finditer(text):
        if found.lastgroup is not None:
            pieces += (text[at : found.start()], "\\ufffd")
            at = found.end()
    pieces.append(text[at:])
    return "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _finite(text: str) -> float:
    """The number, or the largest finite one in place of infinity."""
    return max(-sys.float_info.max, min(float(text), sys.float_info.max))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _without_values(message: str) -> str:
    """The error text of msgspec without quoted values, which may come from a prompt."""
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


def encode_around(body: JsonObject, name: str, pieces: Iterable[bytes]) -> bytes:
    """Return the JSON of ``body``, in which ``pieces`` fill the empty list ``name`` (at any depth). Joined, the pieces
    are the JSON of the list's items with commas between them. They are copied once, while other threads can run.
    """
    # No string in the body can look like the mark, because quotes in strings are escaped.
    before, mark, after = encode_json(body).partition(f'"{name}":[]'.encode())
    assert mark, "the body must contain the list"
    return b"".join((before, mark[:-1], *pieces, b"]", after))


def scrub(value: Any) -> Any:
    """A decoded JSON value in which U+FFFD replaces each lone surrogate."""
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
