"""Without a configuration the environment decides, and says why."""

import pytest

from llm_protocol.requests import LLMProvider
from llm_protocol.secret import Secret
from llm_protocol.vendors import VENDORS
from llm_runtime.config import Timeouts, discover

KINDS = [LLMProvider.OPENAI, LLMProvider.ANTHROPIC, LLMProvider.GEMINI, LLMProvider.COHERE, LLMProvider.CEREBRAS]


def test_nothing_in_sight_is_no_provider() -> None:
    config = discover({"PATH": "/bin"})
    assert (config.providers, config.notes) == ({}, ())


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_brings_its_vendor(kind: LLMProvider) -> None:
    vendor = VENDORS[kind]
    assert vendor.key_variable == f"{kind.value.upper()}_API_KEY"
    config = discover({vendor.key_variable: "sk-CANARY"})
    assert "CANARY" not in repr(config)
    provider = config.providers[kind.value]
    assert (provider.kind, provider.base_url, provider.api_key) == (kind, vendor.base_url, Secret("sk-CANARY"))
    assert config.reasons == {kind.value: f"{vendor.key_variable} is set"}


def test_a_key_that_cannot_be_one_is_passed_over() -> None:
    config = discover({"OPENAI_API_KEY": "CANARY\n\nX"})
    assert config.providers == {}
    assert config.notes == ("OPENAI_API_KEY does not hold a key: it has characters that no key has: passed over",)
    assert discover({"OPENAI_API_KEY": " "}).notes == ()


def test_the_local_model_stands_beside_keys_when_it_is_installed() -> None:
    config = discover({"OPENAI_API_KEY": "k"}, local=True, timeouts=Timeouts(idle=3))
    assert list(config.providers) == ["openai", "local"]
    assert config.reasons["local"] == "the local model is installed"
    assert {provider.timeouts.idle for provider in config.providers.values()} == {3}
