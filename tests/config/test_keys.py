"""Keys come from the environment or a file, and are never seen."""

from pathlib import Path

import pytest

from llm_protocol.secret import Secret
from llm_runtime.config import Config, ConfigError, load, parse

SOURCE = '[keys.me]\nsecret = "%s"\n'


def parsed(reference: str, environ: dict[str, str] | None = None, folder: Path | None = None) -> Config:
    return parse((SOURCE % reference).encode(), environ or {}, folder=folder)


def refused(reference: str, environ: dict[str, str] | None = None, folder: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(reference, environ, folder)
    text = str(caught.value)
    assert text.startswith("config.toml:2: keys.me.secret: ")
    assert "CANARY" not in text
    return text.removeprefix("config.toml:2: keys.me.secret: ")


@pytest.mark.parametrize("literal", ["sk-CANARY-1234", "env", "CANARY:x", "env:", "file: ", "ENV:CANARY", ""])
def test_a_literal_key_is_refused_with_its_line_but_not_its_value(literal: str) -> None:
    """SEC-09"""
    said = refused(literal)
    assert said == 'a key is never written here: write "env:NAME" (an environment variable) or "file:PATH"'


def test_a_key_that_is_not_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="a key is never written here"):
        parse(b"[keys.me]\nsecret = 12345", {})


def test_a_missing_variable_is_named() -> None:
    assert refused("env:MY_KEY") == "the environment variable MY_KEY is not set"


@pytest.mark.parametrize("value", ["sk-CANARY é", "sk CANARY", "CANARY\x00", "CANARY\r\nX-Evil: 1"])
def test_a_value_that_cannot_stand_in_a_header_is_refused(value: str) -> None:
    """SEC-15"""
    assert "characters that no key has" in refused("env:MY_KEY", {"MY_KEY": value})


def test_an_empty_variable_is_no_key() -> None:
    assert refused("env:MY_KEY", {"MY_KEY": " "}) == "the environment variable MY_KEY is empty"


def test_a_key_file_is_read_without_its_newline(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-CANARY\n")
    file.chmod(0o600)
    config = parsed("file:key", folder=tmp_path)
    assert config.keys["me"].secret == Secret("sk-CANARY")
    assert config.notes == ()


def test_a_world_readable_key_file_is_warned_of(tmp_path: Path) -> None:
    """SEC-09"""
    file = tmp_path / "key"
    file.write_text("sk-CANARY\n")
    file.chmod(0o644)
    [note] = parsed(f"file:{file}").notes
    assert note == f"the key file {file} can be read by every user of this machine; chmod 600 it"


def test_a_key_file_that_is_none_is_refused(tmp_path: Path) -> None:
    assert refused("file:nope", folder=tmp_path) == "cannot read the key file 'nope': No such file or directory"
    assert "Is a directory" in refused("file:.", folder=tmp_path)
    (tmp_path / "big").write_bytes(b"CANARY" * 10_000)
    assert refused("file:big", folder=tmp_path) == "the key file 'big' is larger than 16384 bytes"
    (tmp_path / "binary").write_bytes(b"CANARY\xff\xfe")
    assert "characters that no key has" in refused("file:binary", folder=tmp_path)


def test_two_callers_may_not_share_a_key(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[keys.a]\nsecret = "env:K"\n\n[keys.b]\nsecret = "env:K"\n')
    with pytest.raises(ConfigError) as caught:
        load(file, {"K": "CANARY"})
    assert str(caught.value) == f'{file}:5: keys.b.secret: the same key as "a": a key names one caller'
