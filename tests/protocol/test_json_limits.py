"""How much JSON is decoded: each limit, one less and one more, and that no step of the check is long."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.codec.json import (
    LIMITS,
    MAX_TOLERATED_BYTES,
    SLICE_BYTES,
    CheckedJson,
    JsonLimits,
    TooLarge,
    WireError,
    check_json,
    decode_json,
    without_lone_surrogates,
)

MIB = 1024 * 1024
FILLING = "x" * 200_000
"""Makes a text long enough that nothing can be known from its size alone."""


def refused(text: bytes, limits: JsonLimits = LIMITS) -> str:
    try:
        check_json(text, limits)
    except WireError as exc:
        return str(exc)
    return ""


def values(count: int) -> bytes:
    """A list that is ``count`` values with itself and all it has."""
    return b"[" + b"1," * (count - 2) + b"1]"


def test_a_million_values_and_one_more() -> None:
    assert refused(values(LIMITS.values)) == ""
    assert "more than 1000000 values" in refused(values(LIMITS.values + 1))


def test_the_number_of_values_can_be_set() -> None:
    limits = JsonLimits(values=1_000)
    assert refused(values(1_000), limits) == ""
    assert "more than 1000 values" in refused(values(1_001), limits)


def test_keys_and_one_more() -> None:
    for count, expected in (
        (LIMITS.keys, ""),
        (LIMITS.keys + 1, f"the JSON text contains more than {LIMITS.keys} keys"),
    ):
        assert refused(b"{" + b",".join(b'"%d":0' % number for number in range(count)) + b"}") == expected


def test_lists_and_objects_and_one_more() -> None:
    most = LIMITS.containers
    assert refused(b"[" + b"[]," * (most - 2) + b"{}]") == ""
    assert "lists and objects" in refused(b"[" + b"[]," * (most - 1) + b"{}]")


@pytest.mark.parametrize("filling", ["", FILLING])
def test_depth_and_one_more(filling: str) -> None:
    text = json.dumps([filling]).encode()
    deep = b"[" * (LIMITS.depth - 1) + text + b"]" * (LIMITS.depth - 1)
    assert refused(deep) == ""
    assert "nested too deeply" in refused(b"[" + deep + b"]")
    assert decode_json(deep)


@pytest.mark.parametrize("filling", ["", FILLING])
def test_digits_of_a_number_and_one_more(filling: str) -> None:
    """Within the limit in whatever slice it stands."""
    for count in (LIMITS.digits, LIMITS.digits + 1):
        text = json.dumps([filling, "x" * 200]).encode()[:-1] + b"," + b"9" * count + b"]"
        assert bool(refused(text)) is (count > LIMITS.digits)


@pytest.mark.parametrize("number", [b"1e-300", b"5E+300", b"1.2345678901234567e-308", b"1" * 23, b"0." + b"1" * 22])
def test_slow_numbers_and_one_more(number: bytes) -> None:
    for count in (LIMITS.slow_numbers, LIMITS.slow_numbers + 1):
        text = b'["' + FILLING.encode() + b'",' + b",".join([number] * count) + b"]"
        assert bool(refused(text)) is (count > LIMITS.slow_numbers)


@pytest.mark.parametrize("number", [b"0.00012345678901234567", b"-1.7976931348623157e+30", b"1.2345678901234567e-05"])
def test_numbers_as_programs_write_them_are_not_slow(number: bytes) -> None:
    assert refused(b"[" + b",".join([number] * 100_000) + b"]") == ""


def test_a_short_text_of_slow_numbers_is_refused_too() -> None:
    assert refused(b"[" + b",".join([b"5e-320"] * 10_000) + b"]") != ""


def test_what_stands_in_strings_is_not_counted() -> None:
    inner = json.dumps([[{"a": 1}] * 5] * 30_000) + '"' * 10 + "\\" * 11 + "9" * 500 + "1e-300," * 3_000
    text = json.dumps({"content": inner}).encode()
    assert refused(text) == ""
    assert decode_json(text) == {"content": inner}


@given(
    st.lists(st.sampled_from(['"', "\\", "[", "{", ":", ",", "x", "9", "é", "\n"]), max_size=12),
    st.integers(-3, 3),
)
def test_where_a_slice_ends_makes_no_difference(piece: list[str], shift: int) -> None:
    """Quotes, backslashes and numbers stand on both sides of it."""
    odd = "".join(piece)
    before = "x" * (SLICE_BYTES - len(json.dumps(odd)) // 2 - 4 + shift)
    text = json.dumps([before + odd, [odd] * 3, 10**30], ensure_ascii=False).encode()
    exact = JsonLimits(values=text.count(b", ") + 2, containers=2, keys=0, depth=2, digits=31, slow_numbers=1)
    count = sum(map(_values_in, [json.loads(text)])) + 1

    assert refused(text, exact._replace(values=count)) == ""
    assert "values" in refused(text, exact._replace(values=count - 2))


def _values_in(value: Any) -> int:
    return 1 + sum(map(_values_in, value)) if isinstance(value, list) else 1


def test_a_number_that_a_slice_cuts_is_one_number() -> None:
    for shift in range(-40, 40):
        before = "x" * (SLICE_BYTES - 20 + shift)
        text = b'["%b",%b]' % (before.encode(), b"1" * 30)
        assert refused(text, LIMITS._replace(slow_numbers=1)) == ""
        assert refused(text, LIMITS._replace(slow_numbers=0)) != ""


@given(st.binary(max_size=600))
def test_whatever_the_bytes_are(data: bytes) -> None:
    assert isinstance(refused(data, JsonLimits(10, 10, 10, 2, 5, 2)), str)


def test_what_was_checked_is_not_checked_again() -> None:
    text = values(LIMITS.values + 1)
    with pytest.raises(TooLarge):
        decode_json(text)
    assert len(decode_json(CheckedJson(text))) == LIMITS.values


DENSE: dict[str, bytes] = {
    "empty lists": b"[" + b"[]," * (16 * MIB // 3) + b"[]]",
    "empty texts": b"[" + b'"",' * (16 * MIB // 3) + b'""]',
    "numbers": b"[" + b"1," * (8 * MIB) + b"1]",
    "a text of quotes": b'["' + b'\\"' * (8 * MIB) + b'"]',
    "a text of backslashes": b'["' + b"\\\\" * (8 * MIB) + b'"]',
    "base64": b'["' + b"AbCdEf0123456789+/eE" * (16 * MIB // 20) + b'"]',
    "brackets that only open": b"[" * (16 * MIB),
    "digits": b"[" + b"9" * (16 * MIB) + b"]",
    "slow numbers": b"[" + b"1e-300," * (16 * MIB // 7) + b"1]",
    "a text without an end": b'["' + b"x" * (16 * MIB),
    "spaces": b"[" + b" " * (16 * MIB) + b"]",
}


@pytest.mark.parametrize("case", DENSE)
def test_a_dense_text_costs_a_fraction_of_a_second(case: str) -> None:
    """All of it together; the steps of it are a hundredth of that. Empty lists took 7 s."""
    began = time.thread_time()
    with suppress(WireError):
        decode_json(DENSE[case])
    assert time.thread_time() - began < 1


def test_lone_surrogates_in_a_long_text_are_replaced_without_a_loop_over_it() -> None:
    text = "x" * MAX_TOLERATED_BYTES + "\\"
    assert decode_json(f'["{text}ud83d"]')[0][-1] == "\ufffd"
    assert decode_json(f'["{text}ud83d\\ude42"]')[0][-1] == "🙂"
    assert decode_json(f'["{text}\\ud83d"]')[0][-6:] == "\\ud83d"
    assert decode_json(f'["{text}\\\\ud83d"]'.encode())[0][-1] == "\ufffd"
    with pytest.raises(WireError, match="not JSON"):
        decode_json(f'["{text}x"]')
    with pytest.raises(WireError, match="not JSON"):
        decode_json(f'["{text}ud83d", NaN]')


@given(st.lists(st.sampled_from(["\\ud83d", "\\ude42", "\\\\", "\\n", "a", "\\uD83D\\uDE42", "\\u00e9"]), max_size=8))
def test_replacing_surrogates_agrees_with_reading_them(pieces: list[str]) -> None:
    text = '"' + "".join(pieces) + '"'
    expected = json.loads(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert json.loads(without_lone_surrogates(text)) == expected
