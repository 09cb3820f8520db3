"""A peer's JSON, times, headers, pictures and error texts: understood or refused, never a crash."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.codec.headers import duration, http_date, int_header, retry_after, rfc3339, seconds_until
from llm_protocol.codec.json import LIMITS, JsonDecoder, WireError, decode_json, encode_json
from llm_protocol.codec.media import data_uri, image_from_url, image_url, parse_data_uri, unbase64
from llm_protocol.content import Image
from llm_protocol.failures import MESSAGE_LIMIT, FailureKind, kind_of_status
from llm_protocol.secret import error_message, redact


class Point(msgspec.Struct):
    """A shape to decode into."""

    x: int
    name: str = ""


POINT = JsonDecoder(Point, max_bytes=10_000)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{",
        b"NaN",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b"<html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 1_000_000,
        b"1e999",
        b'"\\ud800',
    ],
    ids=range(12),
)
def test_hostile_json_is_a_wire_error(bad: bytes) -> None:
    """Malformed, NaN, depth 10^5, a 10^6-digit number: one typed error."""
    with pytest.raises(WireError):
        decode_json(bad)


def test_what_is_read_is_not_too_deep_to_be_walked() -> None:
    """The limit is our own, so that what was read in few frames can be written again in many."""
    depth = LIMITS.depth
    for deepest in (
        b"[" * depth + b"]" * depth,
        b'{"[\\"{":[' * (depth // 2) + b"]}" * (depth // 2),
    ):
        assert decode_json(deepest)
        assert decode_json(deepest.decode())
        for deeper in b"[" + deepest + b"]", b'{"a":' + deepest + b"}":
            with pytest.raises(WireError, match="too deep"):
                decode_json(deeper)
    flat = b"[" + b'["[[[\\\\", "{\\"{", {}], ' * 1000 + b"[]]"
    assert len(decode_json(flat)) == 1001


def test_a_text_without_an_end_takes_no_longer_than_another() -> None:
    """It is looked through once, not once for each quote in it."""
    began = time.thread_time()
    with pytest.raises(WireError, match="not JSON"):
        decode_json(b"[" * LIMITS.depth + b'"' + b'{\\"' * 100_000)
    assert time.thread_time() - began < 1


def test_a_million_keys_are_refused_before_they_are_objects() -> None:
    text = b"{" + b",".join(b'"k%d":0' % number for number in range(1_000_000)) + b"}"
    with pytest.raises(WireError, match="more than 50000 keys"):
        decode_json(text)


def test_json_within_a_text_has_no_keys() -> None:
    """Whoever asks about a long JSON document sends one text."""
    document = b"{" + b",".join(b'"k%d":0' % number for number in range(100_000)) + b"}"
    text = encode_json({"content": document.decode()})
    assert decode_json(text) == {"content": document.decode()}


@pytest.mark.parametrize("key", [b'"k%d\\\\":0', b'"k%d" \n:0'])
def test_keys_written_oddly_are_keys(key: bytes) -> None:
    text = b"{" + b",".join(key % number for number in range(100_000)) + b"}"
    with pytest.raises(WireError, match="keys"):
        decode_json(text)


@pytest.mark.parametrize("bad", [b"[]", b'{"x":"1"}', b'{"name":1}', b"{}", b'{"x":1,"name":"' + b"a" * 10_000 + b'"}'])
def test_wrong_shapes_are_wire_errors(bad: bytes) -> None:
    """Wrong types, missing fields and oversize are told, not raised as something else."""
    with pytest.raises(WireError):
        POINT.decode(bad)


def test_error_text_says_where_but_not_what() -> None:
    """The peer's values may be somebody's prompt."""
    with pytest.raises(WireError, match=r"\$\.x") as caught:
        POINT.decode(b'{"x":"secret words"}')
    assert "secret" not in str(caught.value)


def test_lone_surrogates_become_replacement_characters() -> None:
    """Tokenisers cut characters in two; the rest of the answer is still good."""
    assert POINT.decode(b'{"x":1,"name":"a\\ud83d"}') == Point(1, "a\ufffd")
    assert decode_json('["\\ud83d\\ude42", "\\ude42"]') == ["🙂", "\ufffd"]


def test_invalid_utf8_inside_a_string_is_replaced() -> None:
    """As in SSE: one behaviour everywhere."""
    assert POINT.decode(b'{"x":1,"name":"a\xffb"}') == Point(1, "a\ufffdb")


def test_encoding_a_lone_surrogate() -> None:
    """A caller's broken text is sent with a replacement character instead of crashing."""
    assert encode_json({"a": ["\ud800x", Point(1, "\udfff")]}) == '{"a":["\ufffdx",{"x":1,"name":"\ufffd"}]}'.encode()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_json_comes_back(value: Any) -> None:
    """``decode(encode(x)) == x``."""
    assert decode_json(encode_json(value)) == value


@given(st.binary(max_size=80) | st.text(max_size=80))
def test_no_input_raises_anything_else(data: bytes | str) -> None:
    """A value or a `WireError`."""
    with contextlib.suppress(WireError):
        decode_json(data)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12ms", 0.012),
        ("1s", 1.0),
        ("1.2s", 1.2),
        ("6m0s", 360.0),
        ("1m26.4s", 86.4),
        ("34.4s", 34.4),
        ("1h2m3s", 3723.0),
        ("2d", 172800.0),
        ("4.69", 4.69),
        ("0", 0.0),
        ("-3", 0.0),
        ("", None),
        ("soon", None),
        ("1s!", None),
        ("nan", None),
        ("inf", None),
        ("1e400", None),
        (None, None),
        ("s", None),
    ],
)
def test_durations(text: str | None, seconds: float | None) -> None:
    """Every vendor's spelling of a number of seconds."""
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ((), None),
        ((("retry-after", "7"),), 7.0),
        ((("retry-after", "0.5"),), 0.5),
        ((("retry-after", "7"), ("retry-after-ms", "1500")), 1.5),
        ((("retry-after-ms", "junk"), ("retry-after", "7")), 7.0),
        ((("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT"),), 30.0),
        ((("retry-after", "Tue, 14 Nov 2023 22:13:10 GMT"),), 0.0),
        ((("retry-after", "-5"),), 0.0),
        ((("retry-after", "nan"),), None),
        ((("retry-after", "whenever"),), None),
        ((("retry-after", "9" * 5000),), None),
    ],
)
def test_retry_after(headers: tuple[tuple[str, str], ...], seconds: float | None) -> None:
    """Milliseconds win over seconds, dates count from ``now``, nonsense is no answer, nothing is negative."""
    assert retry_after(headers, now=NOW) == seconds


def test_a_date_counts_from_the_peers_own_clock() -> None:
    """With a ``date`` header no clocks need to agree."""
    headers = (("date", "Mon, 01 Jan 2001 00:00:00 GMT"), ("retry-after", "Mon, 01 Jan 2001 00:00:09 GMT"))
    assert retry_after(headers) == 9.0
    assert seconds_until("2001-01-01T00:01:00Z", headers) == 60.0


@given(st.text(max_size=70))
def test_times_survive_any_text(text: str) -> None:
    """A finite number or None."""
    for value in (duration(text), http_date(text), rfc3339(text), retry_after([("retry-after", text)], now=NOW)):
        assert value is None or math.isfinite(value)


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14T22:13:20.5+00:00", NOW + 0.5),
        ("2023-11-14T23:13:20+01:00", NOW),
        ("2023-11-14T22:13:20", NOW),
        ("yesterday", None),
        (None, None),
    ],
)
def test_rfc3339(text: str | None, epoch: float | None) -> None:
    """Zones count; none means UTC."""
    assert rfc3339(text) == epoch


def test_int_headers() -> None:
    """Whole numbers, overdrawn ones as 0, nonsense as absent."""
    headers = (("a", "12"), ("b", "-3"), ("c", "x"), ("d", "1.0"))
    assert [int_header(headers, name) for name in "abcde"] == [12, 0, None, 1, None]


@given(st.binary(max_size=40), st.sampled_from(["image/png", "image/jpeg"]))
def test_data_uris_come_back(data: bytes, media_type: str) -> None:
    """Bytes to URL and back."""
    assert parse_data_uri(data_uri(media_type, data)) == (media_type, data)
    image = Image(data=data, media_type=media_type, detail="low")
    assert image_from_url(image_url(image), "low") == image


def test_plain_urls_stay_urls() -> None:
    """Only data URIs are opened."""
    assert image_from_url("https://example.com/a.png") == Image(url="https://example.com/a.png")
    assert image_url(Image(url="https://example.com/a.png")) == "https://example.com/a.png"


@pytest.mark.parametrize(
    "bad", ["data:", "data:image/png,abc", "data:image/png;base64,a", "data:x;base64,é", "http://x"]
)
def test_bad_data_uris_are_wire_errors(bad: str) -> None:
    """What is not base64 is refused."""
    with pytest.raises(WireError):
        parse_data_uri(bad)


def test_base64_in_all_its_spellings() -> None:
    """Standard, URL-safe, padded, unpadded."""
    assert {unbase64(text) for text in ("+/8=", "-_8=", "+/8", "-_8")} == {b"\xfb\xff"}


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdefghijklmnop1234",
        "sk-ant-api03-abc_def-ghijkl",
        "csk-9abcdefghijklmnop",
        "AIzaSyA1234567890abcdefg",
        "sk-ab***************wxyz",
        "abc12345*******6789",
        "0123456789abcdefghijklmnopqrstuvwxyzABCD",
    ],
)
def test_keys_are_redacted(key: str) -> None:
    """Whole keys and the remains of keys that vendors print."""
    text = redact(f"Incorrect API key provided: {key}. Find yours at https://example.com.")
    assert key not in text
    assert key[:8] not in text
    assert text.startswith("Incorrect API key provided: [redacted]")


def test_ordinary_words_are_not_redacted() -> None:
    """Model names, ids with dashes and prose stay."""
    text = (
        "The model `claude-sonnet-4-5-20250929` (gpt-5.6-sol) is risk-averse; see 123e4567-e89b-12d3-a456-426614174000."
    )
    assert redact(text) == text


def test_error_messages_are_bounded_single_lines() -> None:
    """However long and however empty."""
    assert error_message("a\n b\t" + "c" * 10_000, "x").startswith("a b ccc")
    assert len(error_message("word " * 10_000, "x")) <= MESSAGE_LIMIT
    assert error_message(" \n", "nothing said") == error_message(None, "nothing said") == "nothing said"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureKind.BAD_REQUEST),
        (401, FailureKind.AUTH),
        (402, FailureKind.QUOTA),
        (404, FailureKind.MODEL_NOT_FOUND),
        (418, FailureKind.BAD_REQUEST),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.SERVER_ERROR),
        (503, FailureKind.OVERLOADED),
        (529, FailureKind.OVERLOADED),
        (599, FailureKind.SERVER_ERROR),
        (302, FailureKind.PROTOCOL),
    ],
)
def test_kinds_of_statuses(status: int, kind: FailureKind) -> None:
    """What a status says when the body says nothing."""
    assert kind_of_status(status) == kind
