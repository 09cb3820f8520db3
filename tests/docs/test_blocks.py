"""Every block of bash, Python and TOML in README and docs is run as it stands, or it is listed here with the reason.

Blocks of other languages, and of none, are output and pictures. Commands run in a network of their own
(`support.sandbox`), so the ports and addresses are those that are printed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from llm_runtime.config import parse
from support import sandbox
from support.sdk import SDKS, sdk_python

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "decisions" not in path.parts)]
RUN = ("bash", "python", "toml")

NOT_RUN = {
    ("README.md", "pip install ."): "installs from the network",
    ("README.md", "bin/llm-runtime serve"): "runs the whole test suite",
    ("docs/how-to/redis.md", "pip install"): "installs from the network",
}
"""Blocks that nothing runs, by file and beginning."""

ELSEWHERE = {
    "docs/clients.md": "tests/clients/test_agents.py",
    "docs/adding-a-vendor.md": "tests/docs/test_adding_a_vendor.py",
    "docs/embedding.md": "tests/embedding/test_docs.py",
    "docs/kernel.md": "tests/kernel/test_docs.py",
    "docs/orchestration.md": "tests/strategies/test_docs.py",
    "docs/fake-provider.md": "tests/docs/test_fake_provider.py",
    "docs/configuration.md": "tests/config/test_docs.py",
    "docs/how-to/extend.md": "tests/hosts/test_docs.py",
    "docs/dashboard.md": "tests/dashboard/test_statistics.py",
}
"""Pages whose blocks tests of their own run."""

KEYS = {
    "OPENAI_API_KEY": "k",
    "ANTHROPIC_API_KEY": "k",
    "LLM_RUNTIME_KEY": "k" * 32,
    "FIRST_KEY": "k",
    "SECOND_KEY": "k",
}

UPSTREAM = """
[providers.main]
kind = "openai"
base_url = "http://127.0.0.1:8090/openai/v1"
api_key = "env:OPENAI_API_KEY"
models = ["gpt-6-luna"]
"""
"""The daemon that the pages on clients take for granted."""


class Block(NamedTuple):
    """One fenced block."""

    page: str
    language: str
    code: str


@cache
def blocks() -> list[Block]:
    return [
        Block(str(path.relative_to(ROOT)), language.strip(), code)
        for path in PAGES
        for language, code in re.findall(r"^```([^\n]*)\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
    ]


def of(page: str, language: str, *, beginning: str = "") -> list[str]:
    return [each.code for each in blocks() if each[:2] == (page, language) and each.code.startswith(beginning)]


class Did(NamedTuple):
    """What came of a block; ``code`` is ``None`` for one that runs on."""

    code: int | None
    out: str
    err: str


def run(folder: Path, steps: Sequence[tuple[str, str]], environ: dict[str, str] = KEYS) -> list[Did]:
    """Run ``(program, code)`` one after the other. A program that begins with ``&`` is one that does not end."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    plan: list[dict[str, Any]] = []
    for program, code in steps:
        name = program.removeprefix("&")
        argv = ["bash", "-ec"] if name == "bash" else [name, "-c"]
        plan.append({"argv": argv, "code": code, "ends": name == program})
    file = folder / "plan.json"
    file.write_text(json.dumps(plan))
    command = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives no network of its own (unshare)")
    done = subprocess.run(
        [*command, sys.executable, sandbox.__file__, file],
        capture_output=True,
        check=True,
        cwd=folder,
        timeout=240,
        env={"PATH": path, "HOME": str(folder), **environ},
    )
    return [Did(**each) for each in json.loads(done.stdout)]


FAKE = ("&bash", "llm-runtime fake-provider --port 8090")
SERVE = ("&bash", "llm-runtime serve --config my.toml")


def test_no_block_is_left_out() -> None:
    """All of this file's tests together run all blocks."""
    how_to = {each.page for each in blocks() if each.page.startswith("docs/how-to/") and each.page not in ELSEWHERE}
    run_here = {"README.md", "docs/tutorial.md", *how_to}
    unknown = {
        (each.page, each.code.partition("\n")[0])
        for each in blocks()
        if each.language in RUN and each.page not in run_here and each.page not in ELSEWHERE
    }
    assert unknown == set()
    assert all((ROOT / test).is_file() for test in ELSEWHERE.values())
    for page, beginning in NOT_RUN:
        assert len(of(page, "bash", beginning=beginning)) == 1, f"{page} has no such block"
    assert len(NOT_RUN) == 3


@pytest.mark.parametrize("page", ["keys", "limits", "redis", "routes"])
def test_the_configurations_are_valid(page: str, tmp_path: Path) -> None:
    (tmp_path / "intern.key").write_text("k" * 32)
    (tmp_path / "intern.key").chmod(0o600)
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "privkey.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "fullchain.pem"))
    more = {name: f"{name}-0123456789" for name in ("APP_KEY", "PROMETHEUS_KEY", "OPERATOR_KEY")}
    found = of(f"docs/how-to/{page}.md", "toml")
    assert found
    for source in found:
        assert parse(source.encode(), {**KEYS, **more}, folder=tmp_path).enabled


def test_the_key_is_made(tmp_path: Path) -> None:
    [code] = of("docs/how-to/keys.md", "bash")
    [made] = run(tmp_path, [("bash", f"{code}\nprintf %s $LLM_RUNTIME_KEY")])
    assert re.fullmatch(r"[0-9a-f]{64}", made.out), made


def test_the_tutorial(tmp_path: Path) -> None:
    [config] = of("docs/tutorial.md", "toml")
    (tmp_path / "my.toml").write_text(config)
    fake, serve, ask, curl, fallback, failing, explain = of("docs/tutorial.md", "bash")
    steps = [("&bash", fake), ("&bash", serve), *(("bash", each) for each in (ask, curl, fallback, failing, explain))]
    provider, daemon, *rest = run(tmp_path, steps, {})
    assert provider.code is daemon.code is None
    assert re.search(r"^(\d+) checks: \1 ok$", daemon.out, re.M), daemon
    asked, curled, fell_back, failed, explained = rest
    assert "You said: Say hello." in asked.out, asked
    assert json.loads(curled.out)["llm_runtime"], curled
    assert "You said: Say hello." in fell_back.out, fell_back
    assert "exit code 1" in failed.out, failed
    assert "503" in failed.err, failed
    assert "second/claude-sonnet-5" in explained.out, explained


def test_the_readme(tmp_path: Path) -> None:
    """Without a network its providers do not answer; what is run is as printed."""
    (tmp_path / "notes.txt").write_text("A note.")
    (tmp_path / "main.toml").write_text(UPSTREAM)
    (tmp_path / "my.toml").write_text("\n".join(of("README.md", "toml")))
    ask, check_and_serve, explain = (
        each for each in of("README.md", "bash") if not each.startswith(tuple(start for _, start in NOT_RUN))
    )
    environ = {**KEYS, "LLM_RUNTIME_URL": "http://127.0.0.1:8080"}
    *_, asked = run(tmp_path, [FAKE, ("&bash", "llm-runtime serve --config main.toml"), ("bash", ask)], environ)
    assert asked.code == 0, asked
    assert "You said: Tell me a story." in asked.out
    assert "Summarise this." in asked.out
    check, serve = check_and_serve.splitlines()
    checked, served, explained = run(tmp_path, [("bash", check), ("&bash", serve), ("bash", explain)])
    assert checked.code == 1, checked
    assert "failed" in checked.out
    assert served.code is None, served
    assert "primary/" in explained.out, explained


@pytest.mark.parametrize(
    ("sdk", "beginning"),
    [
        ("openai", "from openai"),
        ("anthropic", "from anthropic"),
        ("gemini", "from google"),
        ("cohere", "import cohere"),
    ],
)
def test_the_clients(sdk: str, beginning: str, tmp_path: Path) -> None:
    [code] = of("docs/how-to/clients.md", "python", beginning=beginning)
    assert sdk != "openai" or of("README.md", "python", beginning=beginning) == [code]
    (tmp_path / "my.toml").write_text(UPSTREAM)
    python = sdk_python(sdk, SDKS[sdk])
    *_, said = run(tmp_path, [FAKE, SERVE, (python, code)])
    assert said.out == "You said: Say hello.\n", said


def test_curl(tmp_path: Path) -> None:
    [code] = of("docs/how-to/clients.md", "bash")
    (tmp_path / "my.toml").write_text(UPSTREAM)
    *_, said = run(tmp_path, [FAKE, SERVE, ("bash", code)])
    assert json.loads(said.out)["choices"][0]["message"]["content"] == "You said: Say hello.", said


def test_explaining_a_route(tmp_path: Path) -> None:
    [config, _], [code] = of("docs/how-to/routes.md", "toml"), of("docs/how-to/routes.md", "bash")
    (tmp_path / "my.toml").write_text(config)
    [said] = run(tmp_path, [("bash", code)])
    assert said.code == 0, said
    assert said.out.index("primary/some-model") < said.out.index("second/other-model")
