"""docs/examples with the frameworks that they are for, each in an environment of its own and in front of a fake."""

from __future__ import annotations

import json
import os
import re
import tomllib
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from llm_runtime.fake import FakeProvider, Fault, ScriptRule
from support.sdk import ROOT, sdk_python

pytestmark = pytest.mark.time_limit(400)

EXAMPLES = ROOT / "docs" / "examples"
PACKAGES = {
    "fastapi": ("fastapi>=0.118,<1", "uvicorn>=0.38,<1"),
    "flask": ("flask>=3.1,<4",),
    "notebook": ("nbclient>=0.10,<1", "ipykernel>=7,<8"),
}
SERVING = re.compile(r"[Rr]unning on (http://127\.0\.0\.1:\d+)")
CITY = '{"name": "Oslo", "country": "Norway"}'


async def python_for(example: str) -> str:
    """The Python of an environment with the framework and with what the runtime itself needs."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        packages = (*tomllib.load(file)["project"]["dependencies"], *PACKAGES[example])
    return await trio.to_thread.run_sync(partial(sdk_python, f"example-{example}", *packages))


class Place(NamedTuple):
    """A fake provider, and the environment variables of a program that asks it."""

    fake: FakeProvider
    environ: dict[str, str]


@asynccontextmanager
async def place(folder: Path, *rules: ScriptRule) -> AsyncIterator[Place]:
    async with FakeProvider(*rules) as fake:
        config = folder / "my.toml"
        config.write_text(
            f'[providers.main]\nkind = "openai_compatible"\nbase_url = "{fake.base_url("openai_compatible")}"\n'
            'models = ["some-model"]\n[attempts]\nmax = 1\n'
        )
        environ = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        sources = os.pathsep.join(str(ROOT / part) for part in ("runtime", "actors", "protocol"))
        more = {"HOME": str(folder), "PYTHONPATH": sources, "LLM_RUNTIME_CONFIG": str(config)}
        yield Place(fake, environ | more)


@asynccontextmanager
async def serving(command: list[str], environ: dict[str, str]) -> AsyncIterator[str]:
    """The address of a server that runs for the block."""
    process = await trio.lowlevel.open_process(command, cwd=EXAMPLES, env=environ, stderr=-1)
    assert process.stderr is not None
    said = ""
    try:
        with trio.fail_after(60):
            while not (found := SERVING.search(said)):
                piece = await process.stderr.receive_some()
                assert piece, said
                said += piece.decode()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drop, process.stderr)
            yield found[1]
            process.terminate()
            with trio.fail_after(20):
                assert await process.wait() in (0, -15)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stderr.aclose()


async def _drop(stream: trio.abc.ReceiveStream) -> None:
    async for _ in stream:
        pass


def _post(url: str, text: str) -> tuple[int, str]:
    request = urllib.request.Request(url, json.dumps({"text": text}).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def post(url: str, text: str) -> tuple[int, Any]:
    return await trio.to_thread.run_sync(_post, url, text)


async def leave(url: str, path: str) -> None:
    """Ask for a stream, and leave after its first bytes."""
    host, _, port = url.removeprefix("http://").partition(":")
    body = b'{"text": "slow"}'
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        await stream.send_all(head.encode() + body)
        received = b""
        while b"one" not in received:
            received += await stream.receive_some()


RULES = (
    ScriptRule(contains="Which city", text=CITY),
    ScriptRule(contains="fail", status=429),
    ScriptRule(contains="slow", text="one two three", fault=Fault.STALL, after_events=4),
)


async def test_fastapi(tmp_path: Path) -> None:
    python = await python_for("fastapi")
    command = [python, "-m", "uvicorn", "fastapi_app:app", "--port", "0", "--timeout-graceful-shutdown", "5"]
    async with place(tmp_path, *RULES) as at, serving(command, at.environ) as url:
        assert await post(f"{url}/city", "Which city?") == (200, CITY.replace(": ", ":").replace(", ", ","))
        assert await post(f"{url}/story", "Once.") == (200, "You said: Once.")
        status, body = await post(f"{url}/city", "fail")
        assert status == 429
        assert json.loads(body)["error"].startswith("main/some-model:")
        await leave(url, "/story")
        with trio.fail_after(10):
            await at.fake.journal.until(lambda journal: journal.left == 1)


async def test_flask(tmp_path: Path) -> None:
    python = await python_for("flask")
    command = [python, "-m", "flask", "--app", "flask_app", "run", "--port", "0"]
    async with place(tmp_path, *RULES) as at, serving(command, at.environ) as url:
        answers: list[tuple[int, Any]] = []

        async def ask(text: str) -> None:
            answers.append(await post(f"{url}/ask", text))

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(ask, f"{number}")
        assert sorted(json.loads(body)["answer"] for _, body in answers) == [f"You said: {n}" for n in range(8)]
        assert await post(f"{url}/story", "Once.") == (200, "You said: Once.")
        status, _ = await post(f"{url}/ask", "fail")
        assert status == 429


RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.get("outputs", ()):
        print(output.get("text") or output["data"]["text/plain"])
"""


async def test_the_notebook(tmp_path: Path) -> None:
    python = await python_for("notebook")
    cities = ScriptRule(contains="two cities", text=f'{{"value": [{CITY}, {CITY}]}}')
    async with place(tmp_path, cities) as at:
        done = await trio.run_process(
            [python, "-c", RUN, str(EXAMPLES / "notebook.ipynb")],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=tmp_path,
            env=at.environ,
        )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    said = done.stdout.decode()
    for each in ("{'main': ['some-model']}", "You said: Say hello.", "You said: Tell me a story.", "City(name='Oslo'"):
        assert each in said
