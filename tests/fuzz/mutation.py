"""Mutations: of JSON, such that it stays JSON, since few random bytes are; and of bytes, such as to cost time."""

from __future__ import annotations

import json
import random
import re
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, 2**63, 10**25, 10**399, -(10**399), 5e-320,
    "", "x", "\ud83d", "\0", "*", "a" * 300, [], {}, [None], [[]],
    ["x"], {"": 0}, {"type": "x"}, {"type": []}, [{"type": {}}], "function", "text", "image", "{", '{"a": 1}', "data:,",
)  # fmt: skip
"""Values that are wrong almost everywhere."""

_LINE = re.compile(rb"(?m)^(?:data: ?)?([{\[].*[}\]])\r?$")


def mutated_json(data: bytes, chance: random.Random) -> bytes | None:
    """``data`` with a value in one of its JSON texts replaced, left out, moved or repeated; ``None``: it has none."""
    spans = [match.span(1) for match in _LINE.finditer(data)] or [(0, len(data))]
    begin, end = chance.choice(spans)
    try:
        value = json.loads(data[begin:end])
    except (ValueError, RecursionError):
        return None
    paths: list[tuple[Any, ...]] = list(_paths(value))
    new = chance.choice(ODD) if chance.random() < 0.6 else _at(value, chance.choice(paths))
    changed = _changed(value, chance.choice(paths), new, chance)
    return data[:begin] + json.dumps(changed).encode() + data[end:]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """``data`` with a mutation of its JSON, or with some bytes left out, repeated or exchanged."""
    if chance.random() < 0.7 and (changed := mutated_json(data, chance)) is not None:
        return changed
    begin = chance.randrange(len(data) + 1)
    end = begin + chance.choice((0, 1, 1, 2, 8, 100))
    new = chance.choice((b"", data[begin:end] * 2, bytes((chance.randrange(256),)), chance.choice(_MARKS)))
    return data[:begin] + new + data[end:]


_MARKS = (
    b"\r\n", b"\n\n", b"\0", b"\xff", b"\xed\xa0\xbd", b"\xe2\x80\xa8", b"9" * 5000, b"[" * 2000, b"1e999", b'"',
)  # fmt: skip


def pumped(data: bytes, most: int, chance: random.Random) -> bytes:
    """``data`` with one short piece of it, or a few odd marks, as often as ``most`` bytes allow."""
    begin = chance.randrange(len(data) + 1)
    piece = data[begin : begin + chance.choice((1, 1, 2, 3, 5, 8, 20, 60, 200))]
    if not piece or chance.random() < 0.2:
        piece = bytes(chance.choice(b'0[{"\\ \r\n:,a}]') for _ in range(3))
    tail = data[begin:] if chance.random() < 0.7 else b""
    return data[:begin] + piece * ((most - len(data)) // len(piece)) + tail


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _changed(value: Any, path: tuple[Any, ...], new: Any, chance: random.Random) -> Any:
    if not path:
        return new
    copy = value.copy()
    key = path[0]
    if len(path) > 1:
        copy[key] = _changed(value[key], path[1:], new, chance)
    elif (way := chance.randrange(4)) == 0:
        del copy[key]
    elif way == 1 and isinstance(copy, list):
        copy.insert(key, copy[key])
    elif way == 1 and isinstance(new, str) and new.isascii():
        copy[new] = copy.pop(key)
    else:
        copy[key] = new
    return copy
