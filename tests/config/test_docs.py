"""docs/configuration.md says what is so."""

import re
from pathlib import Path

import msgspec
import pytest

from llm_actors.redis import RedisServer
from llm_protocol.model_facts import Capabilities
from llm_protocol.policy import Attempts, CachePolicy, Limits, Policy, Timeouts
from llm_protocol.prices import OwnPrice
from llm_protocol.vendors import VENDORS
from llm_runtime.config import (
    ConfigError,
    CrossModel,
    Key,
    OtelConfig,
    Provider,
    ProviderCache,
    Selection,
    Server,
    parse,
)
from support.reference import sections

TEXT = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
[EXAMPLE] = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
ENVIRON = {"LLM_RUNTIME_KEY": "k", "OPENAI_API_KEY": "k", "OTLP_AUTHORIZATION": "k"}


def test_the_example_is_valid_and_shows_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "company-ca.pem").touch()
    config = parse(EXAMPLE.encode(), ENVIRON, folder=tmp_path)
    primary = config.providers["primary"]
    assert config.server == Server()
    assert config.timeouts == Timeouts()
    assert config.attempts == Attempts()
    assert config.selection == Selection()
    assert config.redis is not None
    assert config.redis == RedisServer(url=config.redis.url)
    assert primary.base_url == VENDORS[primary.kind].base_url


@pytest.mark.parametrize(
    "section",
    [
        Server,
        Key,
        Provider,
        Capabilities,
        ProviderCache,
        RedisServer,
        OtelConfig,
        OwnPrice,
        Limits,
        Timeouts,
        Attempts,
        Selection,
        CrossModel,
        CachePolicy,
        Policy,
    ],
)
def test_every_key_is_in_the_example(section: type[msgspec.Struct]) -> None:
    names = {field.name for field in msgspec.structs.fields(section)}
    assert {name for name in names if not re.search(rf"\b{name}\b", EXAMPLE)} == set()


def test_every_key_is_described() -> None:
    """In the reference, which is made from the structs: by a docstring below the field."""
    found = {f"{path}.{entry.name}": entry.meaning for path, entries in sections() for entry in entries}
    assert len(found) > 100
    assert {name for name, meaning in found.items() if not meaning} == set()


def test_the_vendors_are_those_of_the_table() -> None:
    for kind, vendor in VENDORS.items():
        [row] = [line for line in TEXT.splitlines() if line.startswith(f"| `{kind}` |")]
        assert not vendor.base_url or f"`{vendor.base_url}`" in row
        assert all(f"`{variable}`" in row for variable in vendor.key_variables)


def test_the_mistakes_shown_are_the_mistakes_made() -> None:
    first, second = re.findall(r"^llm-runtime: config\.toml:\d+: (.*)$", TEXT, re.MULTILINE)
    for source, said in (
        ("[server]\n\nprot = 1", first),
        ('[providers.primary]\nkind="openai"\napi_key = "x"', second),
    ):
        with pytest.raises(ConfigError) as caught:
            parse(source.encode(), {})
        assert str(caught.value).partition(": ")[2] == said
