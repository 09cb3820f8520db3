"""``llm-runtime explain``: who would be asked, and why."""

from __future__ import annotations

from pathlib import Path

from support import commands

CONFIG = """
[providers.cheap]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "env:K"
models = ["gpt-4o-mini"]

[providers.dear]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "env:K"
models = ["gpt-4o"]

[routes.thrifty]
candidates = ["dear/gpt-4o", "cheap/gpt-4o-mini"]
select = "cheapest"
"""


async def test_it_lists_the_candidates_in_the_order_to_try_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    code, out, err = await commands.run("explain", "thrifty", "--config", str(tmp_path / "c.toml"), K="k")

    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert [line.split()[1] for line in lines] == ["cheap/gpt-4o-mini", "dear/gpt-4o"]
    assert "$" in lines[0]


async def test_an_unknown_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    code, out, err = await commands.run("explain", "nope", "--config", str(tmp_path / "c.toml"), K="k")

    assert (code, out) == (1, "")
    assert (
        err == "llm-runtime: there is no model 'nope'; known: cheap/gpt-4o-mini, dear/gpt-4o; or write provider/model\n"
    )


async def test_a_daemon_explains_with_what_it_has_measured(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    async with commands.running(
        "serve", "--config", str(tmp_path / "c.toml"), "--port", "0", environ={"K": "k"}
    ) as process:
        url = (await commands.line(process.stdout)).removeprefix("ready ").strip()
        code, out, err = await commands.run("explain", "thrifty", "--url", url)
        missing = await commands.run("explain", "nope", "--url", url)

    assert (code, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines()] == ["cheap/gpt-4o-mini", "dear/gpt-4o"]
    assert missing[0] == 1
    assert "there is no model 'nope'" in missing[2]


async def test_a_daemon_that_is_not_there_is_one_line() -> None:
    code, out, err = await commands.run("explain", "--url", "http://127.0.0.1:9")

    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "127.0.0.1:9" in err
