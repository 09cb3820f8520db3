"""The daemon between one client and vendors that are our own server, with a model that does what it is told."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from llm_protocol.requests import ChatRequest
from support.agent_model import agent_model, latest_verbs
from support.agents import AGENTS, Agent, Place
from support.daemon import KEY, daemon
from support.server import OpenServer, open_server

FULL = os.environ.get("LLM_RUNTIME_TEST_CLIENTS") == "full"
VENDORS = {
    "openai": "fake/fake-1",
    "anthropic": "ant/claude-sonnet-4-5",
    "gemini": "gem/gemini-2.5-flash",
    "cohere": "coh/command-a-03-2025",
    "cerebras": "cer/sees-1",
}
"""The model to name, by its vendor."""

CHOSEN = tuple(VENDORS) if FULL else ("openai", "anthropic")
"""All of them in the full form, else two."""

TURN_SECONDS = 300.0


class Turn(NamedTuple):
    code: int
    said: str


class Lab(NamedTuple):
    """One agent, the daemon and the vendors behind it."""

    agent: Agent
    place: Place
    upstream: OpenServer
    locked: OpenServer
    """A vendor that refuses the daemon's key: the provider ``locked``, with the same wire and model."""

    @property
    def locked_model(self) -> str:
        """The model to name for a refused key."""
        return f"locked/{self.place.model.partition('/')[2]}"

    async def turn(self, prompt: str, *, again: bool = False) -> Turn:
        """One turn of the agent, to its end."""
        arguments, environ = await self._command(prompt, again)
        with trio.fail_after(TURN_SECONDS):
            done = await trio.run_process(
                arguments,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
                cwd=self.place.work,
                env=environ,
                stdin=b"",
            )
        return Turn(done.returncode, done.stdout.decode(errors="replace"))

    async def _command(self, prompt: str, again: bool) -> tuple[list[str], dict[str, str]]:
        command = await trio.to_thread.run_sync(self.agent.command, self.place, prompt, again)
        bare = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        environ = bare | {"HOME": str(self.place.home), "IS_SANDBOX": "1", "NO_COLOR": "1"} | command.environ
        return command.arguments, environ

    @asynccontextmanager
    async def begun(self, prompt: str) -> AsyncIterator[trio.Process]:
        """A turn that is under way; killed after the block."""
        arguments, environ = await self._command(prompt, again=False)
        process = await trio.lowlevel.open_process(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.place.work,
            env=environ,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def asked(self, verb: str) -> int:
        """How often a vendor was asked for ``verb`` by the agent itself: with tools if it has any, not for a title, and
        in the last turn, not for a summary of those before.
        """
        chats = [each for each in self.upstream.engine.requests if isinstance(each, ChatRequest)]
        own = [each for each in chats if each.tools or not self.agent.has_tools]
        return sum(1 for each in own if (said := latest_verbs(each)) and said[-1][0] == verb)


def vendors_of(upstream: OpenServer) -> str:
    """Configuration: ``upstream`` as each other vendor."""
    return "".join(
        f'[providers.{short}]\nkind = "{kind}"\nbase_url = "{_base_url(upstream, kind)}"\n'
        f'api_key = "env:SDK_TEST_KEY"\nmodels = ["{VENDORS[kind].partition("/")[2]}"]\n'
        for short, kind in (("ant", "anthropic"), ("gem", "gemini"), ("coh", "cohere"), ("cer", "cerebras"))
    )


def _base_url(upstream: OpenServer, vendor: str) -> str:
    return upstream.address.url + ("/v1" if vendor in ("openai", "cerebras") else "")


@asynccontextmanager
async def lab(name: str, vendor: str, folder: Path) -> AsyncIterator[Lab]:
    home, work = folder / "home", folder / "work"
    home.mkdir()
    work.mkdir()
    locks = {"somebody else": "sk-another-0123456789"}
    async with open_server(agent_model, hold_head_s=120) as upstream, open_server(agent_model, keys=locks) as locked:
        kind = "openai_compatible" if vendor == "openai" else vendor
        more = f"""
            [providers.locked]
            kind = "{kind}"
            base_url = "{_base_url(locked, vendor)}"
            api_key = "env:SDK_TEST_KEY"
            models = ["{VENDORS[vendor].partition("/")[2]}"]
        """
        async with daemon(upstream, folder, vendors_of(upstream) + more) as url:
            yield Lab(AGENTS[name], Place(home, work, url, KEY, VENDORS[vendor]), upstream, locked)
            with trio.fail_after(5):
                await upstream.engine.until(lambda: upstream.engine.open_runs == 0)
