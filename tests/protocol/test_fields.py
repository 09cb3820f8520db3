"""The fields of request bodies: refused by name, added without overriding, never a way to redirect a request."""

from __future__ import annotations

import pytest

from llm_protocol.errors import BadRequestError, UnsupportedError
from llm_protocol.fields import add_extra, check_parameters, leftovers
from llm_protocol.requests import Parameters


def test_an_unknown_parameter_is_refused_by_name() -> None:
    """The failure names the field."""
    with pytest.raises(UnsupportedError, match="top_k") as caught:
        check_parameters(Parameters(temperature=0.0, top_k=4), {"temperature"}, "Acme")
    assert caught.value.failure.param == "top_k"


def test_lenient_and_unset_parameters_pass() -> None:
    """What is not set is not refused; what is lenient is left out."""
    check_parameters(Parameters(), (), "Acme")
    check_parameters(Parameters(top_k=4, lenient=True), (), "Acme")


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
            leftovers(value, ())


def test_leftovers_are_the_unknown_fields() -> None:
    """They travel on, as they came."""
    assert leftovers({"model": "m", "logprobs": True, "metadata": {"k": "v"}}, {"model"}) == {
        "logprobs": True,
        "metadata": {"k": "v"},
    }
