"""What a command finds to work with, and what it does when there is nothing."""

from pathlib import Path

import pytest

from llm_runtime import local_model
from llm_runtime.cli import setup
from llm_runtime.cli.setup import CHECKOUT, configured
from llm_runtime.config import Config, ConfigError
from llm_runtime.local_model import install


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine without the local model; what gets installed is noted instead."""
    done: list[str] = []
    monkeypatch.setattr(local_model, "is_installed", lambda: False)
    monkeypatch.setattr(install, "install", lambda: done.append("installed"))
    return done


def test_a_key_needs_no_local_model(installed: list[str]) -> None:
    config = configured(None, {"OPENAI_API_KEY": "k", CHECKOUT: "1"}, print)
    assert list(config.enabled) == ["openai"]
    assert installed == []


def test_an_installed_program_with_nothing_says_what_there_is_to_do(installed: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(None, {}, print)
    assert str(caught.value) == setup.NOTHING
    assert installed == []


@pytest.mark.parametrize("source", [None, '[providers.mine]\nkind = "local"\n'])
def test_a_checkout_installs_the_local_model_when_it_is_needed(
    source: str | None, installed: list[str], tmp_path: Path
) -> None:
    file = None
    if source:
        file = str(tmp_path / "c.toml")
        (tmp_path / "c.toml").write_text(source)
    said: list[str] = []
    config = configured(file, {CHECKOUT: "1"}, said.append)
    assert installed == ["installed"]
    assert [provider.kind for provider in config.enabled.values()] == ["local"]
    assert len(said) == 1


def test_an_installation_that_fails_is_one_line(installed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise install.InstallError("no network")

    monkeypatch.setattr(install, "install", fail)
    with pytest.raises(ConfigError, match=r"^no network\. To use a vendor instead of the local model, set a key"):
        configured(None, {CHECKOUT: "1"}, lambda _: None)


def test_what_is_refused_is_refused_before_anything_is_installed(installed: list[str]) -> None:
    def refuse(config: Config) -> Config:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        configured(None, {CHECKOUT: "1"}, print, refuse)
    assert installed == []


def test_only_disabled_providers_are_none(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[providers.x]\nkind = "openai"\nenabled = false\n')
    with pytest.raises(ConfigError, match="every provider is disabled"):
        configured(str(file), {}, print)
