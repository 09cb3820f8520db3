"""The fields of request bodies: refused by name, added without overriding, never a way to redirect a request."""

from __future__ import annotations

import pytest

from llm_protocol.codec.body import Body
from llm_protocol.codec.fields import add_extra, typed_policy
from llm_protocol.errors import BadRequestError
from llm_protocol.requests import Parameters


def test_extra_adds_but_never_overrides() -> None:
    """Only the dialect's own fields, and only those that we do not set."""
    body = {"model": "m"}
    add_extra(body, Parameters(extra={"a": {"model": "other", "x": 1}, "b": {"y": 2}}), "a")
    assert body == {"model": "m", "x": 1}


@pytest.mark.parametrize(
    "name",
    ["base_url", "baseURL", "api_key", "api-key", "apiKey", "headers", "extra_headers", "Extra-Body", "proxy",
     "proxies", "http_proxy", "authorization", "api_base"],
)  # fmt: skip
def test_transport_fields_are_refused_at_any_depth(name: str) -> None:
    """Neither a caller's extra nor a client's body says where a request goes or with whose key."""
    for value in ({name: "x"}, {"a": {"b": [{name: "x"}]}}):
        with pytest.raises(BadRequestError, match=name):
            add_extra({}, Parameters(extra={"d": value}), "d")
        with pytest.raises(BadRequestError, match=name):
            Body(value).rest()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"select": "cheap"}, "p.select: not one of score, order, cheapest, fastest, weighted, sticky; did you mean"),
        ({"timeouts": {"first": 1}}, 'p.timeouts.first: unknown field; did you mean "first_token"?'),
        ({"base_url": "http://x"}, "p.base_url: unknown field"),
        ({"deadline_s": 0}, "p.deadline_s: expected a number greater than 0"),
        ({"attempts": {"max": 99}}, "p.attempts.max: expected a whole number of at most 10"),
        ({"hedge": "yes"}, "p.hedge: expected true or false, got text"),
        ({"candidates": "a/m"}, "p.candidates: expected a list, got text"),
        ({"members": [""]}, "p.members[0]: expected text with a length of at least 1"),
    ],
)
def test_a_field_that_does_not_fit_is_told_with_what_would(said: dict[str, object], told: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        typed_policy(said, "p")
    assert str(caught.value).startswith(told)
    assert caught.value.failure.param == told.partition(":")[0]
