"""instructor over two wires: ``instructor_client.py URL KEY MODEL WORK full|short``. A tool is a model of pydantic."""

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import anthropic
import instructor
import openai
from pydantic import BaseModel

URL, KEY, MODEL, WORK, FORM = sys.argv[1:]


class write_file(BaseModel):  # noqa: N801 - the tool is called so
    """Write a file."""

    file_path: str
    content: str


def clients(key):
    yield "openai", instructor.from_openai(openai.OpenAI(base_url=f"{URL}/v1", api_key=key, max_retries=0)), {}
    wire = anthropic.Anthropic(base_url=URL, api_key=key, max_retries=0)
    yield "anthropic", instructor.from_anthropic(wire), {"max_tokens": 500}


def asynchronous_clients():
    wire = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
    yield instructor.from_openai(wire), {}
    other = anthropic.AsyncAnthropic(base_url=URL, api_key=KEY, max_retries=0)
    yield instructor.from_anthropic(other), {"max_tokens": 500}


def said(text):
    return {"model": MODEL, "response_model": write_file, "messages": [{"role": "user", "content": text}]}


def failure_of(client, text, more):
    try:
        client.chat.completions.create(**said(text), max_retries=1, **more)
    except Exception as exc:
        return str(exc)
    return "nothing was raised"


def text_of(client, messages, more):
    """The response without a model of pydantic: its text."""
    response = client.chat.completions.create(model=MODEL, response_model=None, messages=messages, **more)
    return response.choices[0].message.content if hasattr(response, "choices") else response.content[0].text


async def check_cancelled(client, more):
    task = asyncio.create_task(client.chat.completions.create(**said("[[hang now]]"), **more))
    await asyncio.sleep(3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def check_waiting(client, more, verb):
    text = text_of(client, said(f"[[{verb} now]]")["messages"], more)
    assert "after" in text, (verb, text)


for name, client, more in clients(KEY):
    path = os.path.join(WORK, f"{name}.txt")
    made = client.chat.completions.create(**said(f"Please do this: [[edit {path}]]"), max_retries=1, **more)
    with open(made.file_path, "w", newline="", encoding="utf-8") as file:
        file.write(made.content)
    *_, last = client.chat.completions.create_partial(**said(f"Please do this: [[edit {path}]]"), **more)
    assert (last.file_path, last.content) == (made.file_path, made.content), last
    answer = {"role": "assistant", "content": json.dumps(made.model_dump())}
    conversation = [*said(f"[[edit {path}]]")["messages"], answer, *said("[[recall it]]")["messages"]]
    recalled = text_of(client, conversation, more)
    assert recalled == "recalled: edit recall", (name, recalled)
    for kind in ("rate_limited", "context_length", "bad_request"):
        told = failure_of(client, f"[[fail {kind}]]", more)
        assert "as asked for" in told, (name, kind, told)
    print(name, "ok", flush=True)
for name, client, more in clients(KEY + "x"):
    assert "401" in failure_of(client, "hi", more), name
for client, more in asynchronous_clients():
    asyncio.run(check_cancelled(client, more))
if FORM == "full":
    waiting = [(client, more, verb) for _, client, more in clients(KEY) for verb in ("silent", "pause")]
    with ThreadPoolExecutor(len(waiting)) as pool:
        list(pool.map(lambda case: check_waiting(*case), waiting))
print("passed")
