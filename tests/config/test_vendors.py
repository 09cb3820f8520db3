"""Vendors of one's own: with the program, and with packages."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from llm_protocol.secret import Secret
from llm_protocol.vendor import Vendor, VendorTable
from llm_protocol.vendors import VENDORS
from llm_runtime import open_runtime, sync
from llm_runtime.config import Config, ConfigError, Provider, discover, installed_vendors, parse, with_vendors
from llm_runtime.fake import FakeProvider

MADEUP = Vendor(kind="madeup", title="Made-up", base_url="https://madeup.example/v1", key_variables=("MADEUP_API_KEY",))
TABLE = VENDORS.plus([MADEUP])
NO_VENDOR = object()

Offer = Callable[[str], None]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Makes a package that is installed offer what is at ``value`` as a vendor."""

    def offering(value: str) -> None:
        point = EntryPoint("madeup", value, "llm_runtime.vendors")
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: EntryPoints([point]).select(group=group))

    return offering


def test_a_kind_of_ones_own_is_like_the_others() -> None:
    config = parse(b'[providers.a]\nkind = "madeup"\napi_key = "env:K"', {"K": "sk"}, vendors=TABLE)
    assert (config.providers["a"].kind, config.providers["a"].base_url) == ("madeup", MADEUP.base_url)
    with pytest.raises(ConfigError, match='needs api_key, for example "env:MADEUP_API_KEY"'):
        parse(b'[providers.a]\nkind = "madeup"', {}, vendors=TABLE)


def test_its_key_in_the_environment_brings_it() -> None:
    config = discover({"MADEUP_API_KEY": "sk"}, vendors=TABLE)
    assert list(config.providers) == ["madeup"]
    assert config.reasons == {"madeup": "MADEUP_API_KEY is set"}


def test_another_name_for_the_key_counts_where_the_first_is_not_set() -> None:
    assert discover({"GOOGLE_API_KEY": "b"}).reasons == {"gemini": "GOOGLE_API_KEY is set"}
    both = discover({"GOOGLE_API_KEY": "b", "GEMINI_API_KEY": "a"})
    assert both.reasons == {"gemini": "GEMINI_API_KEY is set"}
    assert both.providers["gemini"].api_key == Secret("a")


OF_SDKS = {
    "OPENAI_BASE_URL": ("OPENAI_API_KEY", "openai", "base_url", "https://o.test/v1"),
    "OPENAI_ORG_ID": ("OPENAI_API_KEY", "openai", "organization", "org-1"),
    "OPENAI_PROJECT_ID": ("OPENAI_API_KEY", "openai", "project", "proj-1"),
    "ANTHROPIC_BASE_URL": ("ANTHROPIC_API_KEY", "anthropic", "base_url", "https://a.test"),
    "AZURE_OPENAI_ENDPOINT": ("AZURE_OPENAI_API_KEY", "azure", "base_url", "https://my.openai.azure.com"),
}
"""Variables that vendors' SDKs read beside the key: the key's, the kind, the field and a value."""


@pytest.mark.parametrize("variable", OF_SDKS)
def test_the_environment_is_read_as_sdks_read_it(variable: str) -> None:
    key, kind, field, value = OF_SDKS[variable]
    provider = discover({key: "k-0123456789", variable: value}).providers[kind]
    assert str(getattr(provider, field)).startswith(value)


@pytest.mark.parametrize(
    ("variable", "kind"),
    [
        ("CO_API_KEY", "cohere"),
        ("GOOGLE_API_KEY", "gemini"),
        ("OPENROUTER_API_KEY", "openrouter"),
        ("GROQ_API_KEY", "groq"),
        ("MISTRAL_API_KEY", "mistral"),
        ("DEEPSEEK_API_KEY", "deepseek"),
        ("XAI_API_KEY", "xai"),
        ("TOGETHER_API_KEY", "together"),
    ],
)
def test_each_key_that_sdks_read_brings_its_vendor(variable: str, kind: str) -> None:
    assert list(discover({variable: "k-0123456789"}).providers) == [kind]


@pytest.mark.parametrize("enabled", ["true", "false"])
def test_an_unknown_kind_is_an_error_and_never_another_vendor(enabled: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f'[providers.a]\nenabled = {enabled}\nkind = "mistrl"\nbase_url = "http://h"'.encode(), {})
    assert "config.toml:3: providers.a.kind: there is no kind" in str(caught.value)
    assert 'did you mean "mistral"?' in str(caught.value)


async def test_a_config_made_by_hand_with_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'providers\.p\.kind: there is no kind "madeup"'):
        async with open_runtime(Config(providers={"p": Provider(kind="madeup", base_url="http://h")})):
            pass


async def test_a_program_brings_its_vendors(tmp_path: Path) -> None:
    async with FakeProvider(vendors=TABLE, kind="madeup") as fake:
        provider = Provider(kind="madeup", base_url=fake.base_url("madeup"), api_key=Secret("k"))
        async with open_runtime(Config(providers={"p": provider}), vendors=[MADEUP]) as rt:
            assert (await rt.chat("Hello.", model="p/m")).content == "You said: Hello."
        file = tmp_path / "config.toml"
        file.write_text(f'[providers.p]\nkind = "madeup"\nbase_url = "{fake.base_url("madeup")}"\napi_key = "file:key"')
        (tmp_path / "key").write_text("k")
        (tmp_path / "key").chmod(0o600)
        async with open_runtime(file, vendors=[MADEUP]) as rt:
            assert (await rt.chat("Hello.", model="p/m")).content == "You said: Hello."
        assert {seen.kind for seen in fake.journal.requests} == {"madeup"}


async def test_a_vendor_that_exists_cannot_be_replaced() -> None:
    told = 'vendors: there are two vendors of kind "openai"; llm-runtime has the other'
    with pytest.raises(ConfigError, match=told):
        async with open_runtime(Config(), vendors=[Vendor(kind="openai", title="Other")]):
            pass


def test_threads_take_vendors_too() -> None:
    with pytest.raises(ConfigError, match='vendors: there are two vendors of kind "openai"'):
        sync.open_runtime(Config(), vendors=[TAKEN])
    with sync.open_runtime(Config(), vendors=[MADEUP]) as rt:
        assert rt.models() == {}


@pytest.mark.parametrize("name", ["MADEUP", "SEVERAL"])
def test_a_package_brings_its_vendors(offer: Offer, name: str) -> None:
    offer(f"{__name__}:{name}")
    assert installed_vendors()["madeup"] is MADEUP
    assert "madeup" not in VENDORS, "there is no table for the whole process"


def test_a_program_and_a_package_may_bring_the_same_record_but_not_two(offer: Offer) -> None:
    offer(f"{__name__}:MADEUP")
    table = installed_vendors()
    assert with_vendors(table, [MADEUP])["madeup"] is MADEUP
    with pytest.raises(ConfigError) as caught:
        with_vendors(table, [Vendor(kind="madeup", title="Other")])
    told = 'vendors: there are two vendors of kind "madeup"; an installed package has the other (llm_runtime.vendors)'
    assert str(caught.value) == told


SEVERAL = [MADEUP, Vendor(kind="other", title="Other")]
TAKEN = Vendor(kind="openai", title="Other")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (f"{__name__}:NO_VENDOR", "is neither an llm_protocol.vendor.Vendor nor a list of them"),
        (f"{__name__}:MISSING", "cannot be loaded: AttributeError"),
        ("no.such.module:X", "cannot be loaded: ModuleNotFoundError"),
        (f"{__name__}:TAKEN", 'there are two vendors of kind "openai"'),
    ],
)
def test_a_package_that_offers_nonsense_is_named(offer: Offer, value: str, told: str) -> None:
    offer(value)
    with pytest.raises(ConfigError) as caught:
        installed_vendors()
    assert told in str(caught.value)
    assert f"the entry point 'madeup' ({value}) in llm_runtime.vendors" in str(caught.value)


def test_tables_do_not_change() -> None:
    assert isinstance(with_vendors(VENDORS, [MADEUP]), VendorTable)
    assert "madeup" not in VENDORS
