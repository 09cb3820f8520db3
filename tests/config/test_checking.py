"""A `Config` made in Python is checked as a file is, at once, in the same words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from llm_protocol.prices import OwnPrice
from llm_protocol.secret import Secret
from llm_runtime import Config, ConfigError, Image, Policy, Provider, ResponseFormat, ToolChoice, open_runtime
from llm_runtime.config import Attempts, Key, Limits, RequestLogConfig, Server, Timeouts, parse
from llm_runtime.config.checking import checked_config

KEYED = Provider(kind="openai", api_key=Secret("sk-x"))
OPEN = Provider(kind="openai_compatible", base_url="http://127.0.0.1:9/v1/")


def told(config: Config) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        checked_config(config)
    return [str(each) for each in caught.value.all]


def told_of_file(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), {"K": "sk-x"}, file="")
    return [str(each) for each in caught.value.all]


@pytest.mark.parametrize(
    ("config", "file"),
    [
        (Config(providers={"a": Provider(kind="opnai")}), '[providers.a]\nkind = "opnai"'),
        (Config(providers={"a": Provider(kind="openai")}), '[providers.a]\nkind = "openai"'),
        (
            Config(providers={"a": Provider(kind="openai_compatible", base_url="ftp://x")}),
            '[providers.a]\nkind = "openai_compatible"\nbase_url = "ftp://x"',
        ),
        (
            Config(providers={"a": OPEN}, attempts=Attempts(max=99)),
            '[attempts]\nmax = 99\n[providers.a]\nkind = "openai_compatible"\nbase_url = "http://127.0.0.1:9/v1"',
        ),
        (
            Config(providers={"a": OPEN}, routes={"r": Policy(candidates=("b/m",))}),
            '[providers.a]\nkind = "openai_compatible"\nbase_url = "http://127.0.0.1:9/v1"\n'
            '[routes.r]\ncandidates = ["b/m"]',
        ),
        (
            Config(providers={"a b": OPEN}),
            '[providers."a b"]\nkind = "openai_compatible"\nbase_url = "http://127.0.0.1:9/v1"',
        ),
        (
            Config(providers={"a": Provider(kind="openai", api_key=Secret("k"), limits=Limits(max_concurrency=0))}),
            '[providers.a]\nkind = "openai"\napi_key = "env:K"\nlimits.max_concurrency = 0',
        ),
        (
            Config(providers={"a": OPEN}, request_log=RequestLogConfig(path="/x", keys=("nobody",))),
            '[request_log]\npath = "/x"\nkeys = ["nobody"]\n'
            '[providers.a]\nkind = "openai_compatible"\nbase_url = "http://127.0.0.1:9/v1"',
        ),
    ],
    ids=["kind", "key", "address", "number", "route", "name", "limit", "request-log"],
)
def test_the_words_are_those_of_a_file(config: Config, file: str) -> None:
    assert told(config) == told_of_file(file) != []


def test_all_mistakes_are_told_at_once() -> None:
    untyped: Any = {"models": "abc"}
    config = Config(providers={"a": Provider(kind="openai"), "b": Provider(kind="local", **untyped)})
    assert len(told(config)) == 2


def test_what_is_right_stays_as_it_is() -> None:
    config = Config(
        server=Server(port=0, drain_s=1),
        timeouts=Timeouts(idle=5),
        keys={"me": Key(secret=Secret("x" * 20), expires=datetime(2999, 1, 1, tzinfo=UTC))},
        providers={"a": KEYED, "b": OPEN},
        routes={"r": Policy(candidates=("a/m", "b/*"), strategy="fallback")},
        prices={"a/*": OwnPrice(input=1, output=2)},
    )
    found = checked_config(config)
    assert found.providers["a"].api_key == Secret("sk-x")
    assert found.providers["a"].base_url == "https://api.openai.com/v1"
    assert found.providers["b"].base_url == "http://127.0.0.1:9/v1"
    assert found.keys == config.keys
    assert (found.server, found.routes, found.prices) == (config.server, config.routes, config.prices)
    assert checked_config(found) == found


def test_a_key_that_changes_keeps_its_source() -> None:
    key = Secret(source=lambda: "sk-now")
    found = checked_config(Config(providers={"a": Provider(kind="openai", api_key=key)}))
    assert found.providers["a"].api_key is key


async def test_a_runtime_does_not_open_with_mistakes() -> None:
    with pytest.raises(ConfigError, match=r'providers\.a: kind "openai" needs api_key'):
        async with open_runtime(Config(providers={"a": Provider(kind="openai")})):
            pass


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="Image: give url or data, not both"):
        Image(url="https://example.com/a.png", data=b"x")
    with pytest.raises(ValueError, match='type "json_schema" needs a schema'):
        ResponseFormat(type="json_schema")
    with pytest.raises(ValueError, match='type "json" takes no schema, but one was given'):
        ResponseFormat(type="json", schema={})
    with pytest.raises(ValueError, match='mode "named" needs a name'):
        ToolChoice("named")
    with pytest.raises(ValueError, match="mode \"auto\" takes no name, but 'x' was given"):
        ToolChoice("auto", "x")
