"""``llm-runtime explain``: who would be asked, and why."""

from __future__ import annotations

from pathlib import Path

from support import commands
from support.peer import Peer, reply

CONFIG = """
[providers.cheap]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "env:K"
models = ["gpt-6-luna"]

[providers.dear]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "env:K"
models = ["gpt-6-sol"]

[routes.thrifty]
candidates = ["dear/gpt-6-sol", "cheap/gpt-6-luna"]
select = "cheapest"
"""


def ranked(out: str) -> list[str]:
    """The candidates' lines, without notes about them."""
    return [line for line in out.splitlines() if line[0].isdigit()]


async def test_it_lists_the_candidates_in_the_order_to_try_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    code, out, err = await commands.run("explain", "thrifty", "--config", str(tmp_path / "c.toml"), K="k")

    lines = ranked(out)
    assert (code, err) == (0, "")
    assert [line.split()[1] for line in lines] == ["cheap/gpt-6-luna", "dear/gpt-6-sol"]
    assert "$" in lines[0]


async def test_what_ends_or_has_ended_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG.replace('["gpt-6-sol"]', '["gpt-3.5-turbo"]'))
    code, out, _ = await commands.run("explain", "--config", str(tmp_path / "c.toml"), K="k")
    assert (code, len(ranked(out))) == (0, 1), "auto leaves it out"

    code, out, _ = await commands.run("explain", "dear/gpt-3.5-turbo", "--config", str(tmp_path / "c.toml"), K="k")
    assert code == 0
    assert out.splitlines()[1:] == ["warning: dear/gpt-3.5-turbo was shut down on 2026-10-23"]


async def test_an_unknown_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    code, out, err = await commands.run("explain", "nope", "--config", str(tmp_path / "c.toml"), K="k")

    assert (code, out) == (1, "")
    known = "cheap/gpt-6-luna, dear/gpt-6-sol"
    assert err == f"llm-runtime: there is no model 'nope'; known models: {known}; or name one as provider/model\n"


async def test_a_named_configuration_comes_before_a_daemon_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    found = await commands.run(
        "explain", "thrifty", "--config", str(tmp_path / "c.toml"), K="k", LLM_RUNTIME_URL="http://127.0.0.1:1"
    )
    assert found.code == 0, found.err


async def test_the_daemon_gets_the_key() -> None:
    body = b'{"lines": ["1. a/b"]}'
    async with Peer(reply(body, headers={"content-type": "application/json"})) as peer:
        done = await commands.run("explain", "--url", peer.url, LLM_RUNTIME_KEY="sk-CANARY")
    assert done == (0, "1. a/b\n", "")
    assert peer.requests[0].headers["authorization"] == "Bearer sk-CANARY"


async def test_a_daemons_no_to_a_key_says_where_it_is_taken_from() -> None:
    body = b'{"error": {"message": "Incorrect API key."}}'
    async with Peer(reply(body, 401, {"content-type": "application/json"})) as peer:
        done = await commands.run("explain", "--url", peer.url)
    said = "llm-runtime: Incorrect API key. (the key for a daemon is taken from LLM_RUNTIME_KEY)\n"
    assert done == (1, "", said)


async def test_what_is_no_daemon_is_refused_as_ask_refuses_it() -> None:
    nonsense = await commands.run("explain", "--url", "nonsense")
    key = await commands.run("explain", "--url", "http://127.0.0.1:1", LLM_RUNTIME_KEY="a\nb")
    both = await commands.run("explain", "--url", "http://127.0.0.1:1", "--config", "x.toml")

    assert nonsense == (
        2,
        "",
        "llm-runtime: the daemon's URL (--url or LLM_RUNTIME_URL) is not an address like http://127.0.0.1:8080\n",
    )
    assert key == (
        2,
        "",
        "llm-runtime: LLM_RUNTIME_KEY is not a key: a key has printable ASCII characters only, and no spaces\n",
    )
    assert both.code == 2
    assert both.err.endswith("give only one of them\n")


async def test_a_daemon_explains_with_what_it_has_measured(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    async with commands.running(
        "serve", "--config", str(tmp_path / "c.toml"), "--port", "0", environ={"K": "k"}
    ) as process:
        url = (await commands.line(process.stdout)).removeprefix("ready ").strip()
        code, out, err = await commands.run("explain", "thrifty", "--url", url)
        missing = await commands.run("explain", "nope", "--url", url)

    assert (code, err) == (0, "")
    assert [line.split()[1] for line in ranked(out)] == ["cheap/gpt-6-luna", "dear/gpt-6-sol"]
    assert missing[0] == 1
    assert "there is no model 'nope'" in missing[2]


async def test_a_daemon_that_is_not_there_is_one_line() -> None:
    code, out, err = await commands.run("explain", "--url", "http://127.0.0.1:9")

    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "127.0.0.1:9" in err
