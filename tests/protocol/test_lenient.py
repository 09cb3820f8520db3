"""The second look: a field that an answer does not need costs only itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llm_protocol.codec.json import JsonDecoder, WireError
from llm_protocol.codec.lenient import fit, read, read_object


class Inner(msgspec.Struct):
    text: str | None = None
    count: int | None = None


class Shape(msgspec.Struct):
    id: str | None = None
    parts: list[Inner] | None = None
    usage: Inner | None = None
    rest: Any = None


ESSENTIAL = frozenset(("parts", "text"))
DECODER = JsonDecoder(Shape)


@pytest.mark.parametrize(
    ("body", "shape", "ignored"),
    [
        (b'{"id":7}', Shape(id="7"), set()),
        (b'{"id":{"a":1},"rest":1}', Shape(rest=1), {"id"}),
        (b'{"usage":{"count":"12"}}', Shape(usage=Inner(count=12)), set()),
        (b'{"usage":{"count":"many"},"id":"x"}', Shape(id="x", usage=Inner()), {"count"}),
        (b'{"usage":[1]}', Shape(), {"usage"}),
        (b'{"parts":{"text":"one"}}', Shape(parts=[Inner(text="one")]), set()),
        (b'{"parts":[null,{"text":"a"}],"id":1.5}', Shape(id="1.5", parts=[Inner(text="a")]), set()),
        (b'{"parts":[{"text":"a"}],"usage":{"count":NaN}}', Shape(parts=[Inner(text="a")], usage=Inner()), {"count"}),
    ],
)
def test_what_can_be_read_is_read(body: bytes, shape: Shape, ignored: set[str]) -> None:
    left_out: set[str] = set()
    assert read(DECODER, Shape, body, ESSENTIAL, left_out) == shape
    assert left_out == ignored


@pytest.mark.parametrize(
    "body",
    [
        b'{"parts":[{"text":{}}]}',
        b'{"parts":"x"}',
        b'{"parts":[{"text":NaN}]}',
        b'{"parts":[{"text":42}]}',
        b"[1]",
        b"{",
        b"7",
    ],
)
def test_content_is_not_lost_without_a_word(body: bytes) -> None:
    with pytest.raises(WireError):
        read(DECODER, Shape, body, ESSENTIAL, set())


def test_only_known_types_have_content() -> None:
    class Typed(msgspec.Struct):
        type: str = ""
        text: str | None = None

    decoder, ignored = JsonDecoder(Typed), set[str]()
    body = b'{"type":"of tomorrow","text":{}}'
    found = read(decoder, Typed, body, ESSENTIAL, ignored, types=frozenset(("known",)))
    assert (found, ignored) == (Typed("of tomorrow"), {"text"})
    with pytest.raises(WireError):
        read(decoder, Typed, body, ESSENTIAL, ignored, types=frozenset(("of tomorrow",)))


def test_a_field_that_must_be_there() -> None:
    class Needed(msgspec.Struct):
        name: str

    with pytest.raises(WireError, match="missing"):
        fit({}, Needed, ESSENTIAL, set())


def test_numbers_that_json_has_not() -> None:
    assert str(read_object(b'{"a":NaN,"b":-Infinity}')) == "{'a': nan, 'b': -inf}"
