"""instructor over two wires: ``instructor_client.py URL KEY MODEL WORK full|short``. A tool is a model of pydantic."""

import os
import sys

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


def said(text):
    return {"model": MODEL, "response_model": write_file, "messages": [{"role": "user", "content": text}]}


def failure_of(client, text, more):
    try:
        client.chat.completions.create(**said(text), max_retries=1, **more)
    except Exception as exc:
        return str(exc)
    return "nothing was raised"


for name, client, more in clients(KEY):
    path = os.path.join(WORK, f"{name}.txt")
    made = client.chat.completions.create(**said(f"Please do this: [[edit {path}]]"), max_retries=1, **more)
    with open(made.file_path, "w", newline="", encoding="utf-8") as file:
        file.write(made.content)
    *_, last = client.chat.completions.create_partial(**said(f"Please do this: [[edit {path}]]"), **more)
    assert (last.file_path, last.content) == (made.file_path, made.content), last
    for kind in ("rate_limited", "bad_request"):
        told = failure_of(client, f"[[fail {kind}]]", more)
        assert "as asked for" in told, (name, kind, told)
    print(name, "ok", flush=True)
for name, client, more in clients(KEY + "x"):
    assert "401" in failure_of(client, "hi", more), name
print("passed")
