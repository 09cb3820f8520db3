"""An agent of LlamaIndex: ``llama_index_agents.py URL KEY MODEL WORK full|short``."""

import asyncio
import os
import sys

from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.llms.openai_like import OpenAILike

URL, KEY, MODEL, WORK, FORM = sys.argv[1:]


def model(key=KEY):
    return OpenAILike(
        model=MODEL,
        api_base=f"{URL}/v1",
        api_key=key,
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=100_000,
        max_retries=0,
    )


def write_file(file_path: str, content: str) -> str:
    """Write a file."""
    with open(file_path, "w", newline="", encoding="utf-8") as file:
        file.write(content)
    return "written"


async def waits(verb):
    stream = await model().astream_complete(f"[[{verb} now]]")
    assert "after" in "".join([piece.delta or "" async for piece in stream]), verb


async def main():
    agent = FunctionAgent(tools=[write_file], llm=model())
    memory = ChatMemoryBuffer.from_defaults(llm=model())
    path = os.path.join(WORK, "llama.txt")
    done = await agent.run(f"Please do this: [[edit {path}]]", memory=memory)
    assert str(done) == "edited", str(done)
    handler = agent.run("And now: [[recall it]]", memory=memory)
    streamed = "".join([event.delta async for event in handler.stream_events() if isinstance(event, AgentStream)])
    assert streamed == str(await handler) == "recalled: edit recall", streamed
    stream = await model().astream_complete("[[say one two three]]")
    assert "".join([piece.delta or "" async for piece in stream]) == "one two three"
    cases = [(401, KEY + "x", "hi"), (429, KEY, "[[fail rate_limited]]"), (400, KEY, "[[fail bad_request]]")]
    for status, key, text in [*cases, (400, KEY, "[[fail context_length]]")]:
        told = None
        try:
            await model(key).acomplete(text)
        except Exception as exc:
            told = getattr(exc, "status_code", repr(exc))
        assert told == status, (status, told)
    hanging = asyncio.create_task(model().acomplete("[[hang now]]"))
    await asyncio.sleep(3)
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    if FORM == "full":
        await asyncio.gather(waits("silent"), waits("pause"))
    print("passed")


asyncio.run(main())
