"""JSON that is still being written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_runtime.typed import completed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("Sure: ", None),
        ("{", {}),
        ('{"a', {}),
        ('{"a"', {}),
        ('{"a":', {}),
        ('{"a": "x', {"a": "x"}),
        ('{"a": "x\\', {"a": "x"}),
        ('{"a": "x\\u00', {"a": "x"}),
        ('{"a": "x\\ud83d', {"a": "x"}),
        ('{"a": 1', {}),
        ('{"a": 1,', {"a": 1}),
        ('{"a": [1, {"b": "c', {"a": [1, {"b": "c"}]}),
        ('{"a": [1, tr', {"a": [1]}),
        ('```json\n{"a": null}', {"a": None}),
        ("[[1, 2], [3", [[1, 2], []]),
        ("{} and more", {}),
        ("}{", {}),
        ('{"a" "b"', {}),
        ('{"a": 1 2}', None),
        ('{"a": "\ud800', None),
    ],
)
def test_what_is_certain_is_there(text: str, value: Any) -> None:
    assert completed(text) == value


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def grows(before: Any, after: Any) -> bool:
    """Whether ``after`` has all of ``before``, texts and lists possibly longer."""
    if isinstance(before, dict):
        return isinstance(after, dict) and all(key in after and grows(before[key], after[key]) for key in before)
    if isinstance(before, list):
        return isinstance(after, list) and all(map(grows, before, after)) and len(before) <= len(after)
    if isinstance(before, str):
        return isinstance(after, str) and after.startswith(before)
    return before is None or bool(before == after)


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.booleans())
def test_it_only_grows_and_ends_as_the_whole(value: dict[str, Any], ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    last: Any = None
    for end in range(len(text) + 1):
        now = completed(text[:end])
        assert grows(last, now), (text[:end], last, now)
        last = now
    assert last == value


@given(st.text(alphabet='{}[],:" \\abc1tru', max_size=30))
def test_garbage_is_survived(text: str) -> None:
    completed(text)
