"""LangChain's standard suites: through the daemon nothing fails that does not fail at the vendor itself."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import trio

from support.agents import SCRIPTS
from support.client_lab import CHOSEN, VENDORS, vendors_of
from support.daemon import KEY, daemon
from support.frameworks import LANGCHAIN
from support.sdk import sdk_python
from support.server import open_server
from support.suite_model import suite_model

pytestmark = pytest.mark.time_limit(2000)

CLIENTS = {
    "openai": "fake-1",
    "openai_responses": "fake-1",
    "anthropic": "claude-sonnet-4-5",
    "google": "gemini-2.5-flash",
    "cohere": "command-a-03-2025",
}
"""The model that each client names where it talks to its vendor."""

WITHOUT_EMBEDDINGS = ("anthropic", "cerebras")

_RESULT = re.compile(r"^(PASSED|FAILED|ERROR|XFAIL|XPASS) .*?::(\S+)", re.MULTILINE)


async def results(client: str, url: str, key: str, model: str) -> dict[str, str]:
    """What became of each test of the suites."""
    python = await trio.to_thread.run_sync(sdk_python, "langchain", *LANGCHAIN)
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environ |= {"LAB_CLIENT": client, "LAB_URL": url, "LAB_KEY": key, "LAB_MODEL": model}
    options = ["-q", "-rA", "--tb=line", "-p", "no:cacheprovider", "--noconftest", "--rootdir", str(SCRIPTS)]
    for setting in ("mode=auto", "default_test_loop_scope=session", "default_fixture_loop_scope=session"):
        options += ["-o", f"asyncio_{setting}"]  # the clients keep connections, which belong to one loop
    with trio.fail_after(400):
        done = await trio.run_process(
            [python, "-m", "pytest", *options, "-c", os.devnull, str(SCRIPTS / "langchain_standard.py")],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environ,
        )
    found = {name: word for word, name in _RESULT.findall(done.stdout.decode())}
    assert len(found) > 20, done.stdout.decode()[-2000:] + done.stderr.decode()[-2000:]
    return found


@pytest.mark.parametrize("client", CLIENTS)
async def test_nothing_fails_that_does_not_fail_at_the_vendor(client: str, tmp_path: Path) -> None:
    async with open_server(suite_model) as upstream:
        straight = await results(client, upstream.address.url, "sk-any", CLIENTS[client])
        async with daemon(upstream, tmp_path, vendors_of(upstream)) as url:
            for vendor in CHOSEN:
                # The bare name: the suite wants to be told the model under the name that it asked for.
                through = await results(client, url, KEY, VENDORS[vendor].partition("/")[2])
                failed = {name for name, word in through.items() if word in ("FAILED", "ERROR")}
                if vendor in WITHOUT_EMBEDDINGS:
                    failed = {name for name in failed if "TestEmbeddings" not in name}
                assert {name for name in failed if straight.get(name) == "PASSED"} == set(), vendor
