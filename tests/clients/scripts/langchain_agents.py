"""LangChain's four clients, in an agent of LangGraph: ``langchain_agents.py URL KEY MODEL WORK full|short``."""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_cohere import ChatCohere
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

URL, KEY, MODEL, WORK, FORM = sys.argv[1:]
CLIENTS = {
    "openai": lambda key=KEY: ChatOpenAI(model=MODEL, base_url=f"{URL}/v1", api_key=key, max_retries=0),
    "responses": lambda key=KEY: ChatOpenAI(
        model=MODEL, base_url=f"{URL}/v1", api_key=key, max_retries=0, use_responses_api=True
    ),
    "anthropic": lambda key=KEY: ChatAnthropic(model=MODEL, base_url=URL, api_key=key, max_retries=0, max_tokens=999),
    "google": lambda key=KEY: ChatGoogleGenerativeAI(model=MODEL, base_url=URL, google_api_key=key, max_retries=0),
    "cohere": lambda key=KEY: ChatCohere(model=MODEL, base_url=URL, cohere_api_key=key),
}
ERRORS = {
    "openai": {401: openai.AuthenticationError, 429: openai.RateLimitError, 400: openai.BadRequestError},
    "anthropic": {401: anthropic.AuthenticationError, 429: anthropic.RateLimitError, 400: anthropic.BadRequestError},
}
ERRORS["responses"] = ERRORS["openai"]


def said(text):
    return {"messages": [{"role": "user", "content": text}]}


def check_errors(name):
    """The client's own exception for each class, or for clients that have one for all, the text."""
    cases = [(401, KEY + "x", "hi"), (429, KEY, "[[fail rate_limited]]"), (400, KEY, "[[fail bad_request]]")]
    for status, key, text in [*cases, (400, KEY, "[[fail context_length]]")]:
        raised = None
        try:
            CLIENTS[name](key).invoke(text)
        except Exception as exc:
            raised = exc
        if name in ERRORS:
            assert isinstance(raised, ERRORS[name][status]), (name, status, repr(raised))
        else:
            assert str(status) in f"{raised!r} {getattr(raised, 'status_code', '')}", (name, status, repr(raised))


async def check_cancelled(name):
    async def hang():
        async for _ in CLIENTS[name]().astream("[[hang now]]"):
            begun.set()

    begun = asyncio.Event()
    task = asyncio.create_task(hang())
    await asyncio.wait_for(begun.wait(), 30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def check_waiting(name, verb):
    text = "".join(chunk.text for chunk in CLIENTS[name]().stream(f"[[{verb} now]]"))
    assert "after" in text, (name, verb, text)


def check_agent(name):
    path = os.path.join(WORK, f"{name}.txt")

    @tool
    def write_file(file_path: str, content: str) -> str:
        """Write a file."""
        with open(file_path, "w", newline="", encoding="utf-8") as file:
            file.write(content)
        return "written"

    agent = create_agent(CLIENTS[name](), tools=[write_file], checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": name}}
    done = agent.invoke(said(f"Please do this: [[edit {path}]]"), thread)
    assert done["messages"][-1].text == "edited", done["messages"][-1]
    assert os.path.exists(path)
    again = "".join(
        chunk.text
        for chunk, _ in agent.stream(said("And now: [[recall it]]"), thread, stream_mode="messages")
        if chunk.type == "AIMessageChunk"
    )
    assert again == "recalled: edit recall", (name, again)


for name in CLIENTS:
    check_agent(name)
    pieces = [chunk.text for chunk in CLIENTS[name]().stream("[[say one two three]]")]
    assert "".join(pieces) == "one two three", (name, pieces)
    check_errors(name)
    asyncio.run(check_cancelled(name))
    print(name, "ok", flush=True)
if FORM == "full":
    waiting = [(name, verb) for name in CLIENTS for verb in ("silent", "pause")]
    with ThreadPoolExecutor(len(waiting)) as pool:
        list(pool.map(lambda case: check_waiting(*case), waiting))
several = ChatOpenAI(model=MODEL, base_url=f"{URL}/v1", api_key=KEY, n=2).generate([[HumanMessage("[[say hi]]")]])
assert [each.text for each in several.generations[0]] == ["hi", "hi"], several
print("passed")
