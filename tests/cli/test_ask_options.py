"""What ``llm-runtime ask`` takes besides words, and ``llm-runtime models``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llm_protocol.content import Document, Image, Message
from llm_runtime.cli.attachments import attachment, options, schema
from llm_runtime.cli.conversation import CONVERSATION_BYTES, KeptConversation, keep, load, place, save
from llm_runtime.config import ConfigError
from llm_runtime.fake import FakeProvider, ScriptRule
from support import commands

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


class Asked:
    """``ask`` with a configuration whose provider is the fake."""

    def __init__(self, fake: FakeProvider, folder: Path) -> None:
        self.fake = fake
        self.folder = folder
        self.config = folder / "c.toml"
        self.config.write_text(
            f'[providers.fake]\nkind = "openai_compatible"\nbase_url = "{fake.base_url("openai_compatible")}"\n'
            'models = ["m", "n"]\n'
        )

    async def __call__(self, *arguments: str, command: str = "ask") -> commands.Done:
        state = str(self.folder / "state")
        return await commands.run(command, "--config", str(self.config), *arguments, XDG_STATE_HOME=state)

    def bodies(self) -> list[Any]:
        return [json.loads(each.body) for each in self.fake.journal.requests]


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncIterator[Asked]:
    async with FakeProvider() as fake:
        yield Asked(fake, tmp_path)


async def test_a_conversation_goes_on_with_its_model_and_its_system_prompt(ask: Asked) -> None:
    assert await ask("-m", "fake/n", "-s", "Be short.", "Hi.") == (0, "You said: Hi.\n", "")
    assert await ask("-c", "And more.") == (0, "You said: And more.\n", "")
    _, second = ask.bodies()
    assert second["model"] == "n"
    assert [each["role"] for each in second["messages"]] == ["system", "user", "assistant", "user"]
    await ask("-c", "-s", "Be long.", "Once more.")
    systems = [each["content"] for each in ask.bodies()[-1]["messages"] if each["role"] == "system"]
    assert systems == ["Be long."]


async def test_it_is_in_a_file_that_only_its_user_reads(ask: Asked) -> None:
    await ask("Hi.")
    file = place({"XDG_STATE_HOME": str(ask.folder / "state")})
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    file.unlink()
    await ask("-n", "Hi.")
    assert not file.exists()


async def test_without_one_there_is_nothing_to_continue(ask: Asked) -> None:
    code, _, err = await ask("-c", "Hi.")
    assert (code, err) == (2, "llm-runtime: -c: there is no conversation to continue yet\n")


async def test_a_schema_options_and_an_attachment_are_sent(ask: Asked) -> None:
    ask.fake.script(ScriptRule(text='{"name": "Ada", "age": 36}'))
    picture = ask.folder / "a.png"
    picture.write_bytes(PNG)
    done = await ask("--schema", "name, age int: in years", "-o", "temperature", "0.5", "-a", str(picture), "Who?")
    assert done == (0, '{"name": "Ada", "age": 36}\n', "")
    [body] = ask.bodies()
    found = body["response_format"]["json_schema"]["schema"]
    assert found["properties"] == {"name": {"type": "string"}, "age": {"type": "integer", "description": "in years"}}
    assert body["temperature"] == 0.5
    assert [part["type"] for part in body["messages"][-1]["content"]] == ["image_url", "text"]


async def test_the_whole_response_as_json(ask: Asked) -> None:
    code, out, _ = await ask("--json", "Hi.")
    response = json.loads(out)
    assert (code, response["content"], response["provider"]) == (0, "You said: Hi.", "fake")
    assert response["usage"]["output_tokens"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-o", "temprature", "1", "hi"), "-o: there is no option 'temprature'; did you mean \"temperature\"?"),
        (("-o", "temperature", "hot", "hi"), "-o: temperature: expected a number, got text"),
        (("-a", "/nowhere", "hi"), "-a /nowhere: No such file or directory"),
        (("--schema", "{", "hi"), "--schema is neither JSON, a file of JSON, nor fields such as: name, age int"),
        (("--schema", "name age", "hi"), "--schema: 'name age' is not a field"),
    ],
    ids=["option", "value", "attachment", "json", "fields"],
)
async def test_mistakes_are_one_line(ask: Asked, arguments: tuple[str, ...], says: str) -> None:
    code, out, err = await ask(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"llm-runtime: {says}")
    assert err.count("\n") == 1
    assert list(ask.fake.journal.requests) == []


async def test_a_question_that_is_not_utf_8_is_kept(ask: Asked) -> None:
    assert await ask("h\udcffi") == (0, "You said: h\ufffdi\n", "")
    assert await ask("-c", "And more.") == (0, "You said: And more.\n", "")


async def test_without_a_home_folder_the_answer_comes_and_is_not_kept(
    ask: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(ConfigError, match="no home folder: set XDG_STATE_HOME"):
        load({})
    told: list[str] = []
    monkeypatch.setattr("llm_runtime.cli.conversation.say", told.append)
    keep("m", [Message.of("user", "hi")], {})
    [line] = told
    assert "was not saved" in line
    assert "XDG_STATE_HOME" in line


async def test_models_are_listed(ask: Asked) -> None:
    assert await ask(command="models") == (0, "auto\nfake/m\nfake/n\n", "")
    assert (await ask("--json", command="models")).out == '{"fake":["m","n"]}\n'


def test_kinds_of_attachments(tmp_path: Path) -> None:
    for name, content, kind in (("a", PNG, Image), ("b.pdf", b"%PDF-1.4", Document), ("c.md", b"text", Document)):
        (tmp_path / name).write_bytes(content)
        assert isinstance(attachment(str(tmp_path / name)), kind)
    assert attachment("https://example.com/a") == Image(url="https://example.com/a")
    assert attachment("https://example.com/a.pdf") == Document(
        url="https://example.com/a.pdf", media_type="application/pdf"
    )
    with pytest.raises(ConfigError, match="only images and PDFs can be attached by URL"):
        attachment("https://example.com/a.mp3")
    (tmp_path / "d").write_bytes(b"\xff\x00")
    with pytest.raises(ConfigError, match="not an image, audio, PDF or text"):
        attachment(str(tmp_path / "d"))


def test_a_schema_may_be_json_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "object"}')
    assert schema(str(tmp_path / "s.json")) == schema('{"type": "object"}')
    assert options([("stop", '["a"]'), ("user", "me")]) == {"stop": ["a"], "user": "me"}


def test_what_is_nested_too_deeply_is_a_mistake() -> None:
    deep = "[" * 100_000
    assert options([("stop", deep)]) == {"stop": deep}
    with pytest.raises(ConfigError, match="--schema is neither JSON"):
        schema('{"a":' + deep)


def test_what_is_too_large_or_damaged_is_told(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    with pytest.raises(ValueError, match="more than 32 MiB"):
        save(KeptConversation(model="m", messages=(Message.of("user", "x" * CONVERSATION_BYTES),)), environ)
    save(KeptConversation(model="m", messages=(Message.of("user", "hi"),)), environ)
    assert load(environ).messages == (Message.of("user", "hi"),)
    place(environ).write_text("{")
    with pytest.raises(ConfigError, match="it is damaged"):
        load(environ)


async def test_an_option_that_does_not_exist_has_a_hint() -> None:
    done = await commands.run("ask", "--modle", "x", "hi")
    assert done.code == 2
    assert done.err.endswith('unrecognized arguments: --modle; did you mean "--model"?\n')


def test_a_schema_file_that_is_missing_is_told() -> None:
    with pytest.raises(ConfigError, match=r"--schema: there is no file nope\.json"):
        schema("nope.json")
