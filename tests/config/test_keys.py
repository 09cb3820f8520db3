"""Keys come from the environment or a file, and are never seen."""

import json
from pathlib import Path

import pytest

from llm_protocol.secret import Secret
from llm_runtime.config import Config, ConfigError, Key, load, parse

MOMENT = "a date and time with an offset, such as 2030-01-31T12:00:00Z"
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
    said = refused(literal)
    assert said == 'a key must not be written here: write "env:NAME" (an environment variable) or "file:PATH"'


def test_a_key_that_is_not_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="a key must not be written here"):
        parse(b"[keys.me]\nsecret = 12345", {})


def test_a_missing_variable_is_named() -> None:
    assert refused("env:MY_KEY") == "the environment variable MY_KEY is not set"


@pytest.mark.parametrize("value", ["sk-CANARY é", "sk CANARY", "CANARY\x00", "CANARY\r\nX-Evil: 1"])
def test_a_value_that_cannot_stand_in_a_header_is_refused(value: str) -> None:
    assert "a key has printable ASCII characters only" in refused("env:MY_KEY", {"MY_KEY": value})


def test_an_empty_variable_is_no_key() -> None:
    assert refused("env:MY_KEY", {"MY_KEY": " "}) == "the environment variable MY_KEY is empty"


def test_a_key_file_is_read_without_its_newline(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-CANARY-of-some-length\n")
    file.chmod(0o600)
    config = parsed("file:key", folder=tmp_path)
    assert config.keys["me"].secret == Secret("sk-CANARY-of-some-length")
    assert config.notes == ()


def test_a_world_readable_key_file_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-CANARY-of-some-length\n")
    file.chmod(0o644)
    [note] = parsed(f"file:{file}").notes
    assert note == f"the key file {file} can be read by every user of this machine; chmod 600 it"


def test_a_key_file_that_is_none_is_refused(tmp_path: Path) -> None:
    assert refused("file:nope", folder=tmp_path) == "cannot read the key file 'nope': No such file or directory"
    assert refused("file:~nobody-x/k") == "cannot read the key file '~nobody-x/k': No such file or directory"
    assert "Is a directory" in refused("file:.", folder=tmp_path)
    (tmp_path / "big").write_bytes(b"CANARY" * 10_000)
    assert refused("file:big", folder=tmp_path) == "the key file 'big' is larger than 16384 bytes"
    (tmp_path / "binary").write_bytes(b"CANARY\xff\xfe")
    assert "a key has printable ASCII characters only" in refused("file:binary", folder=tmp_path)


def test_two_callers_may_not_share_a_key(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[keys.a]\nsecret = "env:K"\n\n[keys.b]\nsecret = "env:K"\n')
    with pytest.raises(ConfigError) as caught:
        load(file, {"K": "CANARY-of-some-length"})
    assert str(caught.value) == f'{file}:5: keys.b.secret: the same key as "a": each caller needs its own key'


CALLER = """\
[keys.me]
secret = "env:K"
{}

[routes.careful]
candidates = ["primary/a"]

[providers.primary]
kind = "openai_compatible"
base_url = "http://127.0.0.1:1/v1"
models = ["a", "org/b"]
"""


def caller(line: str) -> Key:
    return parse(CALLER.format(line).encode(), {"K": "CANARY"}).keys["me"]


def test_a_caller_without_a_list_may_use_everything_for_ever() -> None:
    assert (caller("").models, caller("").expires) == (None, None)


def test_a_callers_list_names_routes_models_and_providers() -> None:
    names = ("careful", "primary/a", "primary/new", "primary/*", "bare", "org/b")
    assert caller(f"models = {json.dumps(names)}").models == names


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('models = ["primray/a"]', 'keys.me.models: no configured provider for "primray/a"; did you mean "primary"?'),
        ('models = ["primray/*"]', 'keys.me.models: no configured provider for "primray/*"; did you mean "primary"?'),
        ('models = ["*"]', 'keys.me.models: the only pattern is "provider/*"; to allow all models, omit models'),
        ('models = ["primary/a*"]', "keys.me.models: the only pattern is"),
        ('models = ["auto"]', 'keys.me.models: "auto" is not a model: it chooses among the models in this list'),
        ("models = []", "keys.me.models: expected a list with a length of at least 1"),
        ('models = "a"', "keys.me.models: expected a list, got text"),
        ("modles = []", 'keys.me.modles: unknown key; did you mean "models"?'),
        ("expires = 2030-01-31T00:00:00", f"keys.me.expires: expected {MOMENT}"),
        ("expires = 2030-01-31", f"keys.me.expires: expected {MOMENT}, got a date"),
        ("expires = 10:00:00", f"keys.me.expires: expected {MOMENT}, got a time"),
        ("expires = 1893456000", f"keys.me.expires: expected {MOMENT}, got a whole number"),
    ],
)
def test_a_mistake_in_a_callers_rights_is_told(line: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        caller(line)
    assert str(caught.value).startswith(f"config.toml:3: {said}")


def test_a_key_expires_at_a_moment_wherever_its_owner_is() -> None:
    east, west = caller("expires = 2099-01-01T00:00:00+02:00"), caller("expires = 2098-12-31T22:00:00Z")
    assert east.expires is not None
    assert east.expires == west.expires


@pytest.mark.parametrize("moment", ["1979-05-27T07:32:00Z", "0001-01-01T00:00:00+23:59"])
def test_a_key_that_has_expired_is_noted_and_no_mistake(moment: str) -> None:
    config = parse(CALLER.format(f"expires = {moment}").encode(), {"K": "CANARY-of-some-length"})
    [note] = config.notes
    assert note.startswith("keys.me expired at ")
    later = parse(CALLER.format("expires = 9999-12-31T23:59:59-23:59").encode(), {"K": "CANARY-of-some-length"})
    assert later.notes == ()


def test_a_secret_that_may_be_guessed_is_noted_and_no_mistake() -> None:
    """By its length alone, and without a character of it."""
    short, long = (parse(CALLER.format("").encode(), {"K": "x" * length}).notes for length in (15, 16))
    [note] = short
    assert note.startswith("keys.me.secret has fewer than 16 characters")
    assert "xxx" not in note
    assert long == ()
