"""``[keys.X] passthrough``: entries are checked when the configuration is read."""

from __future__ import annotations

import pytest

from llm_runtime.config import ConfigError, parse

HEAD = """
[keys.me]
secret = "env:KEY"
passthrough = [{}]
[providers.openai]
kind = "openai"
api_key = "env:KEY"
"""
ENVIRON = {"KEY": "sk-0123456789abcdef0123"}


def test_entries_are_kept() -> None:
    config = parse(HEAD.format('"POST openai/v1/files", "GET openai/v1/files/*"').encode(), ENVIRON)
    assert config.keys["me"].passthrough == ("POST openai/v1/files", "GET openai/v1/files/*")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('"openai/v1/files"', "a provider's name and a path, such as"),
        ('"post openai/v1/files"', "a provider's name and a path, such as"),
        ('"GET opneai/v1/files"', 'keys.me.passthrough: there is no provider "opneai"; did you mean "openai"?'),
    ],
)
def test_a_mistake_is_named(entry: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(HEAD.format(entry).encode(), ENVIRON)
    assert said in str(caught.value)


def test_nothing_is_allowed_by_default() -> None:
    assert parse(HEAD.format("").encode(), ENVIRON).keys["me"].passthrough == ()
