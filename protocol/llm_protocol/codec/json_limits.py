"""Limit the cost of decoding JSON: the number of values, keys and containers, the depth, the length of numbers.

A limit on bytes alone is not enough. A megabyte of base64 is decoded in half a millisecond, a megabyte of empty lists
in a hundred, and a number like 1e-300 takes as long as six kilobytes of text. The check consists of calls into C over
slices of the text, so no step takes long. The measurements are in docs/decisions/0007-large-json.md.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import NamedTuple

SLICE_BYTES = 256 * 1024
"""Bytes that are examined in one step."""


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
