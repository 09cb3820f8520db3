"""Agents of pydantic-ai over four wires: ``pydantic_agents.py URL KEY MODEL WORK full|short``."""

import asyncio
import os
import sys

from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider

URL, KEY, MODEL, WORK, FORM = sys.argv[1:]
MODELS = {
    "openai": lambda key: OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key=key)),
    "responses": lambda key: OpenAIResponsesModel(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key=key)),
    "anthropic": lambda key: AnthropicModel(MODEL, provider=AnthropicProvider(base_url=URL, api_key=key)),
    "google": lambda key: GoogleModel(MODEL, provider=GoogleProvider(base_url=URL, api_key=key)),
}


async def check(name):
    path = os.path.join(WORK, f"pydantic-{name}.txt")
    agent = Agent(MODELS[name](KEY))

    @agent.tool_plain
    def write_file(file_path: str, content: str) -> str:
        """Write a file."""
        with open(file_path, "w", newline="", encoding="utf-8") as file:
            file.write(content)
        return "written"

    done = await agent.run(f"Please do this: [[edit {path}]]")
    assert done.output == "edited", done.output
    again = await agent.run("And now: [[recall it]]", message_history=done.all_messages())
    assert again.output == "recalled: edit recall", again.output
    async with agent.run_stream("[[say one two three]]") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == "one two three", pieces
    for status, key, text in (
        (401, KEY + "x", "hi"),
        (429, KEY, "[[fail rate_limited]]"),
        (400, KEY, "[[fail bad_request]]"),
        (400, KEY, "[[fail context_length]]"),
    ):
        told = None
        try:
            await Agent(MODELS[name](key)).run(text)
        except ModelHTTPError as exc:
            told = exc.status_code
        assert told == status, (name, status, told)
    task = asyncio.create_task(agent.run("[[hang now]]"))
    await asyncio.sleep(3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    print(name, "ok", flush=True)


async def waits(name, verb):
    assert "after" in (await Agent(MODELS[name](KEY)).run(f"[[{verb} now]]")).output, (name, verb)


async def main():
    for name in MODELS:
        await check(name)
    if FORM == "full":
        await asyncio.gather(*(waits(name, verb) for name in MODELS for verb in ("silent", "pause")))
    print("passed")


asyncio.run(main())
