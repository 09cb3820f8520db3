"""Without a configuration the environment decides, and says why."""

from functools import partial

import pytest
import trio

from llm_protocol.requests import LLMProvider
from llm_protocol.secret import Secret
from llm_protocol.vendor import Vendor, VendorTable
from llm_protocol.vendors import VENDORS
from llm_runtime.config import Timeouts, discover
from llm_runtime.config.discovery import LOOPBACK_SECONDS
from support.peer import Peer, reply, stall

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
    assert config.notes == (
        "OPENAI_API_KEY is not a key: a key has printable ASCII characters only, and no spaces: ignored",
    )
    assert discover({"OPENAI_API_KEY": " "}).notes == ()


def test_the_local_model_stands_beside_keys_when_it_is_installed() -> None:
    config = discover({"OPENAI_API_KEY": "k"}, local=True, timeouts=Timeouts(idle=3))
    assert list(config.providers) == ["openai", "local"]
    assert config.reasons["local"] == "the local model is installed"
    assert {provider.timeouts.idle for provider in config.providers.values()} == {3}


def table(base_url: str) -> VendorTable:
    rows = [each for each in VENDORS.values() if not each.found_on_loopback]
    return VendorTable([*rows, Vendor(kind="lama", title="Lama", base_url=base_url, found_on_loopback=True)])


async def test_a_server_that_answers_on_this_machine_is_found_where_nothing_else_is() -> None:
    async with Peer(reply(b'{"data":[]}')) as peer:
        find = partial(discover, loopback=True, local=True, vendors=table(f"{peer.url}/v1"))
        config = await trio.to_thread.run_sync(find, {})
        assert (list(config.providers), config.reasons) == (["lama"], {"lama": f"responds at {peer.url}/v1"})
        assert (peer.requests[0].method, peer.requests[0].target) == ("GET", "/v1/models")
        keyed = await trio.to_thread.run_sync(find, {"OPENAI_API_KEY": "k"})
        assert list(keyed.providers) == ["openai", "local"], "who has a key means it"
        assert len(peer.requests) == 1
        assert list(discover({}, local=True, vendors=table(f"{peer.url}/v1")).providers) == ["local"]


@pytest.mark.parametrize("script", [reply(b"", 404), stall()], ids=["no list", "silent"])
async def test_a_server_that_does_not_list_models_is_not(script: object) -> None:
    async with Peer(script) as peer:  # type: ignore[arg-type]
        find = partial(discover, loopback=True, vendors=table(f"{peer.url}/v1"))
        begun = trio.current_time()
        assert (await trio.to_thread.run_sync(find, {})).providers == {}
        assert trio.current_time() - begun < 10 * LOOPBACK_SECONDS
    assert (await trio.to_thread.run_sync(find, {})).providers == {}, "nobody listens there any more"
    elsewhere = partial(discover, loopback=True, vendors=table("http://192.0.2.1/v1"))
    assert elsewhere({}).providers == {}, "and nobody but this machine is asked"
