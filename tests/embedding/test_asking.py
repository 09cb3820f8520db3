"""What a program asks for besides chats, as its vendor sees it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llm_runtime import Config, LLMProvider, Provider, Runtime, Secret, open_runtime
from llm_runtime.fake import FakeProvider


@asynccontextmanager
async def runtime() -> AsyncIterator[tuple[Runtime, FakeProvider]]:
    kind = LLMProvider.OPENAI
    async with FakeProvider() as fake:
        provider = Provider(kind=kind, base_url=fake.base_url(kind), api_key=Secret("any"), models=("m",))
        async with open_runtime(Config(providers={"main": provider})) as rt:
            yield rt, fake


async def test_pictures_are_asked_for_in_all_that_was_said() -> None:
    async with runtime() as (rt, fake):
        response = await rt.generate_image("A cat.", model="main/m", n=2, size="1024x1024", quality="high")
        [seen] = fake.journal.requests
    assert len(response.images) == 2
    body = json.loads(seen.body)
    said = {name: body[name] for name in ("prompt", "n", "size", "quality")}
    assert said == {"prompt": "A cat.", "n": 2, "size": "1024x1024", "quality": "high"}


async def test_code_is_asked_for_with_what_stands_around_it() -> None:
    async with runtime() as (rt, fake):
        response = await rt.generate_code(
            "Return the first.",
            model="main/m",
            language="python",
            prefix="def first(items):",
            suffix="print(first)",
            files={"a.py": "LIMIT = 7"},
        )
        [seen] = fake.journal.requests
    assert response.content
    for part in ("Return the first.", "python", "def first(items):", "print(first)", "a.py", "LIMIT = 7"):
        assert part in seen.body.decode(), part
