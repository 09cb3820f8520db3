"""Nothing that the vendors' SDKs know is lost on its own wire, but for what is explained: see bin/vendor-drift."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_protocol.events import FieldsAdded
from llm_protocol.extra_fields import KeptFields, beyond, filled, outer_fields, rest_of, shape_of
from support import drift
from support.drift import SURFACE, differences, report


@pytest.fixture(scope="module")
def surface() -> dict[str, Any]:
    """What the SDKs said when bin/vendor-drift --save was run last."""
    found: dict[str, Any] = json.loads(SURFACE.read_text(encoding="utf-8"))
    return found


def test_there_is_no_difference_that_is_not_explained(surface: dict[str, Any]) -> None:
    assert report(surface) == []


def test_what_no_wire_knows_is_found() -> None:
    """The comparison is not blind."""
    message = {"role": "assistant", "content": "x", "new": 1}
    odd = {
        "parameters": {"openai images": {"partial_images": 3}},
        "answers": {
            "openai chat": {
                "id": "1",
                "model": "m",
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            },
            "cohere chat": {"message": {"role": "assistant", "content": []}, "finish_reason": "COMPLETE", "usage": 5},
        },
        "events": {},
        "words": {"openai model": ["gpt-6-luna", "zzz-1"], "anthropic stop_reason": ["end_turn", "tired"]},
    }
    assert dict(differences(odd)) == {
        "openai images parameter partial_images": ("refused: images are not streamed; omit stream and partial_images"),
        "openai model zzz-1": "no table knows it",
        "anthropic stop_reason tired": "no table knows it",
        "cohere chat answer message.content": "does not come back",
    }


def test_an_explanation_without_a_difference_is_told(
    surface: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    stale = tmp_path / "explained.toml"
    stale.write_text(drift.EXPLAINED.read_text() + '\n"of * nothing" = "x"\n')
    monkeypatch.setattr(drift, "EXPLAINED", stale)
    assert report(surface) == ["explained, but there is no such difference: of * nothing"]


def test_what_says_the_same_again_is_told_once() -> None:
    kept = KeptFields("d")
    kept.keep("head", {"a": 1, "known": 2, "empty": "", "none": None}, ("known",))
    assert kept.take_events() == [FieldsAdded("d", {"head": {"a": 1}})]
    kept.keep("head", {"a": 1})
    assert kept.take_events() == []
    kept.keep("head", {"a": 2, "b": [1]})
    kept.keep("head", "no object")
    assert kept.take_events() == [FieldsAdded("d", {"head": {"a": 2, "b": [1]}})]


def test_what_was_kept_stands_beside_ours_and_never_over_it() -> None:
    ours = {"a": 1, "in": {"x": 1}}
    assert filled(ours, {"a": 9, "b": 2, "in": {"x": 9, "y": 2}}) == {"a": 1, "b": 2, "in": {"x": 1, "y": 2}}
    assert filled(ours, None) == ours
    shape = shape_of("a", inner=("x",))
    assert beyond({"a": 1, "b": 2, "inner": {"x": 1, "y": 2}}, shape) == {"b": 2, "inner": {"y": 2}}
    assert beyond({"a": 1, "inner": 5}, shape) == {}
    assert rest_of(5, ()) == {}


def test_only_what_is_asked_for_is_read() -> None:
    text = '{"long": [1, 2], "usage": {"n": 1}, "new": "x"}'
    assert outer_fields(text, ("usage",), ("long", "usage")) == {"usage": {"n": 1}, "new": "x"}
    assert outer_fields('{"odd": "\\ud800", "long": 1}', (), ("long",)) == {"odd": "\ufffd"}
