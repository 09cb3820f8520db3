"""An agent that plans, studies with tools, asks several models and writes a report.

    python agent.py "How do tides work?"                    on Trio, with the providers of the environment
    python agent.py --asyncio "How do tides work?"          on asyncio
    python agent.py --url http://127.0.0.1:8080 "How …?"    with a running daemon

The agent itself does not know where it runs: the methods are the same. A topic that fails is left out, a model that
fails is dropped, and it stops when its money is spent.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import trio

import llm_runtime
from llm_runtime import LLMClientError, RunEvent, RunFailed, RunFinished, aio, tool


class Plan(msgspec.Struct):
    """What to study, in order."""

    topics: list[str]


class Note(msgspec.Struct):
    """What was learned of a topic, and its embedding for whoever looks for it later."""

    topic: str
    text: str
    vector: Sequence[float]


class Spending:
    """An observer: what was spent so far, in US dollars. Runs whose price is not known cost nothing here."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.spent = 0.0
        self.runs = 0

    def __call__(self, event: RunEvent) -> None:
        """See `llm_runtime.Observer`."""
        if isinstance(event, RunFinished | RunFailed):
            self.runs += 1
            self.spent += event.cost or 0.0

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left."""
        return self.spent >= self.limit


@tool
async def look_up(topic: str) -> str:
    """Look a topic up in the encyclopedia."""
    return f"{topic}: caused by gravity."


class Agent:
    """``rt`` is a runtime of any host; ``members`` are the models that answer together."""

    def __init__(
        self, rt: Any, spending: Spending, say: Callable[[str], object], *, model: str = "auto", members: Any = None
    ) -> None:
        self.rt = rt
        self.spending = spending
        self.say = say
        self.model = model
        self.members = members
        self.notes: list[Note] = []

    async def work(self, goal: str) -> str:
        """The report on ``goal``."""
        request = f"Plan the work: which topics must be studied to answer this? {goal}"
        response = await self.rt.chat(request, model=self.model, response_type=Plan, repair=True)
        for topic in response.parsed.topics:
            if self.spending.is_over:
                self.say("the money is spent")
                break
            try:
                await self.study(topic)
            except LLMClientError as error:  # it was tried again, and elsewhere: this topic has to wait
                self.say(f"{topic}: {error}")
        return await self.report(goal)

    async def study(self, topic: str) -> None:
        """Learn of one topic: with tools, then by asking several models whether it is true."""
        run = await self.rt.run_tools(
            f"Study: {topic}. Look it up.", tools=[look_up], model=self.model, max_rounds=4, deadline_s=60
        )
        answers = await self.rt.collaborate(
            f"Is this true? {run.response.content}", members=self.members or 3, deadline_s=60
        )
        text = answers[-1].content
        [vector] = (await self.rt.embed(text, model=self.model)).embeddings
        self.notes.append(Note(topic, text, vector))
        self.say(f"{topic}: {len(answers)} answers")

    async def report(self, goal: str) -> str:
        """What was learned, as it is written."""
        known = "\n".join(f"- {note.topic}: {note.text}" for note in self.notes)
        pieces: list[str] = []
        async with self.rt.stream(f"Report on: {goal}\n{known}", model=self.model) as stream:
            async for piece in stream.text():
                pieces.append(piece)
                self.say(piece)
        return "".join(pieces)


def main(arguments: list[str]) -> None:
    """Run it on the host that the arguments name."""
    spending = Spending(limit=1.0)

    async def work(rt: Any) -> None:
        await Agent(rt, spending, print).work(arguments[-1])
        print(f"{spending.runs} runs, ${spending.spent:.4f}")

    async def on_trio() -> None:
        async with llm_runtime.open_runtime(observers=[spending]) as rt:
            await work(rt)

    async def on_asyncio() -> None:
        async with aio.open_runtime(observers=[spending]) as rt:
            await work(rt)

    async def on_a_daemon() -> None:
        key = os.environ.get("LLM_RUNTIME_KEY")
        async with llm_runtime.connect(arguments[1], key=key, observers=[spending]) as rt:
            await work(rt)

    match arguments[0]:
        case "--asyncio":
            asyncio.run(on_asyncio())
        case "--url":
            trio.run(on_a_daemon)
        case _:
            trio.run(on_trio)


if __name__ == "__main__":
    main(sys.argv[1:])
