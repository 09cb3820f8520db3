"""Decode a peer's JSON within limits, or raise one exception, `WireError`, however malformed the input is.

A limit on bytes alone is not enough. A megabyte of base64 is decoded in half a millisecond, a megabyte of empty lists
in a hundred, and a number like 1e-300 takes as long as six kilobytes of text. So `check_json` limits the number of
values, keys and containers, the depth, and the length of numbers. The check consists of calls into C over slices of the
text, so no step takes long. The measurements are in docs/decisions/0007-large-json.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

import msgspec

from llm_protocol.content import JsonObject

T = TypeVar("T")

MAX_BODY_BYTES = 256 * 1024 * 1024
"""The limit for a complete JSON body in bytes, whatever the configuration allows."""

MAX_TOLERATED_BYTES = 256 * 1024
"""The largest text, in bytes, that is decoded a second time, tolerantly: that is a hundred times slower."""


class WireError(ValueError):
    """A peer's bytes could not be decoded. The message says why and where, and contains none of the bytes."""


class TooLarge(WireError):  # noqa: N818  (it says what is wrong, as its base does)
    """A peer's bytes exceed a limit. The part that was decoded is valid."""


class JsonLimits(NamedTuple):
    """The limits for one JSON text."""

    values: int = 1_000_000
    """The most values of any kind, counted by commas and opening brackets."""
    keys: int = 50_000
    """The most members of all objects together: each costs over a hundred bytes of memory. Long lists of models are
    within the limit.
    """
    containers: int = 100_000
    """The most lists and objects: each costs time in garbage collection."""
    depth: int = 256
    """The deepest nesting of lists and objects: code that walks or encodes the value has fewer stack frames than the
    decoder.
    """
    digits: int = 400
    """The most digits of one number. Decoding takes time proportional to the square of its length."""
    slow_numbers: int = 2_000
    """The most numbers with 23 or more digits, or with an exponent of three or more digits. Each may take a hundred
    times longer to decode than others.
    """


LIMITS = JsonLimits()

DEEP = "the JSON text is nested too deeply"


class JsonDecoder(Generic[T]):
    r"""Decodes JSON text into ``T``; make one per shape and keep it.

    Lone surrogates (``"\ud83d"`` cut from its other half, as tokenisers produce) and bytes that are not UTF-8 become
    U+FFFD. NaN, Infinity, wrong types and values beyond ``limits`` raise `WireError`.
    """

    __slots__ = ("_limits", "_max_bytes", "_type", "plain", "small")

    def __init__(self, type_: type[T], *, max_bytes: int = MAX_BODY_BYTES, limits: JsonLimits = LIMITS) -> None:
        self.plain = msgspec.json.Decoder(type_).decode
        """Decodes a text of at most ``small`` characters, without `WireError`: raises the errors of msgspec."""
        self._type = type_
        self._max_bytes = max_bytes
        self._limits = limits
        self.small = min(max_bytes, small_size(limits))

    def decode(self, data: bytes | str) -> T:
        """Decode a value. Raises `WireError`, and `TooLarge` if it exceeds the limits."""
        if len(data) > self.small:
            if len(data) > self._max_bytes:
                raise TooLarge(f"the JSON text is longer than {self._max_bytes} bytes")
            if not isinstance(data, CheckedJson):
                check_json(data, self._limits)
        try:
            return self.plain(data)
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
            return self.plain(without_lone_surrogates(text))
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


# ---------------------------------------------------------------- limits


SLICE_BYTES = 256 * 1024
"""Bytes that are examined in one step."""


# The characters that are counted: brackets, commas and colons; digits and points as 0; e, which begins an exponent.
_KEPT = b"[]{},:"
_MARKS = bytes(48 if mark in b"0123456789." else 101 if mark in b"eE" else mark for mark in range(256))
_DROPPED = bytes(mark for mark in range(256) if mark not in _KEPT + b"0123456789.eE")

_NUMBERS = _MARKS.replace(b"+", b"0").replace(b"-", b"0")
"""The bytes of numbers with signs as digits. Then e-30 looks like e300, which is precise enough to rule out most
texts.
"""

_NOT_BRACKETS = b",:0e"
_STEPS = bytes(1 if mark in b"[{" else 255 for mark in range(256))
"""1 for an opening bracket, -1 as a signed byte for a closing one."""

_MANY_DIGITS = b"0" * 23
"""A number this long may have to be decoded slowly. A double has 17 significant digits; with ``0.000`` before them
and a two-digit exponent it has 22.
"""
_EXTREME = b"e000"
_SLOW = re.compile(rb"(?:%b|%b)[0e]*+" % (_MANY_DIGITS, _EXTREME))


class CheckedJson(bytes):
    """A JSON text that has passed `check_json`. Decoders do not check it again."""

    __slots__ = ()


def small_size(limits: JsonLimits) -> int:
    """Return the size of the longest text that cannot exceed ``limits``: it has too few characters."""
    return 2 * limits.depth


def check_json(data: bytes | str, limits: JsonLimits = LIMITS) -> None:
    """Raise `TooLarge` if the JSON text ``data`` exceeds ``limits``. Raise `WireError` for extreme depth or extreme
    numbers, which no honest sender writes. If the text is not JSON, only the part that a decoder would read is
    checked.
    """
    if len(data) <= small_size(limits):
        return
    text = data if isinstance(data, bytes) else data.encode("utf-8", "replace")
    if not _is_surely_within(text, limits):
        _Counter(limits).count(text)


def _is_surely_within(text: bytes, limits: JsonLimits) -> bool:
    """Whether the text is within the limits, as far as its size and simple counts can tell. These counts do not
    distinguish strings from other text.
    """
    if len(text) > SLICE_BYTES or text.count(b"[") + text.count(b"{") > limits.depth:
        return False
    if len(text) > 2 * min(limits.values, limits.keys, limits.containers):
        return False
    numbers = text.translate(_NUMBERS)
    if b"0" * (limits.digits + 1) in numbers:
        return False
    return len(text) < limits.slow_numbers * len(b"1e300,") or numbers.count(_EXTREME) <= limits.slow_numbers


class _Counter:
    """Counts characters outside of strings."""

    def __init__(self, limits: JsonLimits) -> None:
        self._limits = limits
        self._in_string = False
        self._number = b""  # the end of a slice may have split an escape sequence
        self._values = 1
        self._keys = self._containers = self._depth = self._slow = 0

    def count(self, text: bytes) -> None:
        start, size = 0, len(text)
        while start < size:
            end = start + SLICE_BYTES
            part = text[start:end]
            if (len(part) - len(part.rstrip(b"\\"))) % 2:  # the last backslash escapes the next character
                part = text[start : end + 1]
            start += len(part)
            self._add(self._outside(part), last=start >= size)

    def _outside(self, part: bytes) -> bytes:
        """The relevant characters of ``part`` outside of strings."""
        if b"\\" in part:  # remove pairs first: a remaining backslash before a quote escapes it
            part = part.replace(b"\\\\", b"").replace(b'\\"', b"")
        pieces = part.split(b'"')
        outside = b"".join(pieces[self._in_string :: 2])
        self._in_string ^= len(pieces) % 2 == 0
        return outside.translate(_MARKS, _DROPPED)

    def _add(self, outside: bytes, *, last: bool) -> None:
        limits = self._limits
        opened = outside.count(b"[") + outside.count(b"{")
        if opened:
            self._check_depth(outside)
        self._values += outside.count(b",") + opened
        self._keys += outside.count(b":")
        self._containers += opened
        for count, limit, what in (
            (self._values, limits.values, "values"),
            (self._keys, limits.keys, "keys"),
            (self._containers, limits.containers, "lists and objects"),
        ):
            if count > limit:
                raise TooLarge(f"the JSON text contains more than {limit} {what}")
        outside = self._number + outside
        whole = outside if last else outside.rstrip(b"0e")
        self._number = outside[len(whole) :]
        if len(self._number) > limits.digits:
            whole = outside
        self._check_numbers(whole)

    def _check_depth(self, outside: bytes) -> None:
        steps = memoryview(outside.translate(_STEPS, _NOT_BRACKETS)).cast("b")
        if max(accumulate(steps, initial=self._depth)) > self._limits.depth:
            raise WireError(DEEP)
        self._depth += sum(steps)

    def _check_numbers(self, outside: bytes) -> None:
        if _MANY_DIGITS not in outside and _EXTREME not in outside:
            return
        found = _SLOW.findall(outside)
        if max(map(len, found)) > self._limits.digits:
            raise WireError(f"the JSON text contains a number with more than {self._limits.digits} digits")
        self._slow += len(found)
        if self._slow > self._limits.slow_numbers:
            raise WireError(
                f"the JSON text contains more than {self._limits.slow_numbers} numbers with 23 or more digits, or "
                "an exponent as in 1e-300"
            )


# ---------------------------------------------------------------- decoders and encoders


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
