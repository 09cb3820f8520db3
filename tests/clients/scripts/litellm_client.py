"""LiteLLM as a client, over three wires: ``litellm_client.py URL KEY MODEL WORK full|short``."""

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import litellm

URL, KEY, MODEL, WORK, FORM = sys.argv[1:]
WIRES = {
    "openai": {"model": f"openai/{MODEL}", "api_base": f"{URL}/v1"},
    "anthropic": {"model": f"anthropic/{MODEL}", "api_base": URL},
    "gemini": {"model": f"gemini/{MODEL}", "api_base": f"{URL}/v1beta"},
}
SCHEMA = {
    "type": "object",
    "properties": {"file_path": {"type": "string"}, "content": {"type": "string"}},
    "required": ["file_path", "content"],
}
TOOLS = [{"type": "function", "function": {"name": "write_file", "description": "Write.", "parameters": SCHEMA}}]
ERRORS = [
    (litellm.AuthenticationError, KEY + "x", "hi"),
    (litellm.RateLimitError, KEY, "[[fail rate_limited]]"),
    (litellm.BadRequestError, KEY, "[[fail bad_request]]"),
    (litellm.BadRequestError, KEY, "[[fail context_length]]"),
]


def ask(wire, messages, key=KEY, **more):
    return litellm.completion(messages=messages, api_key=key, num_retries=0, max_retries=0, **wire, **more)


def user(text):
    return {"role": "user", "content": text}


async def cancelled(wire):
    stream = await litellm.acompletion(messages=[user("[[hang now]]")], api_key=KEY, stream=True, **wire)
    async for _ in stream:
        break
    await asyncio.sleep(0)


def waits(name, verb):
    stream = ask(WIRES[name], [user(f"[[{verb} now]]")], stream=True)
    text = "".join(each.choices[0].delta.content or "" for each in stream)
    assert "after" in text, (name, verb, text)


for name, wire in WIRES.items():
    path = os.path.join(WORK, f"litellm-{name}.txt")
    messages = [user(f"Please do this: [[edit {path}]]")]
    said = ask(wire, messages, tools=TOOLS).choices[0].message
    (call,) = said.tool_calls
    given = json.loads(call.function.arguments)
    with open(given["file_path"], "w", newline="", encoding="utf-8") as file:
        file.write(given["content"])
    messages += [said.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "written"}]
    done = ask(wire, messages, tools=TOOLS).choices[0].message
    assert done.content == "edited", (name, done)
    messages += [done.model_dump(), user("And now: [[recall it]]")]
    assert ask(wire, messages, tools=TOOLS).choices[0].message.content == "recalled: edit recall"
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(wire, [user("[[say one two three]]")], stream=True)]
    assert "".join(pieces) == "one two three", (name, pieces)
    for expected, key, text in ERRORS:
        try:
            ask(wire, [user(text)], key)
        except expected:
            pass
        else:
            raise AssertionError((name, expected, "nothing was raised"))
    asyncio.run(cancelled(wire))
    print(name, "ok", flush=True)
if FORM == "full":
    cases = [(name, verb) for name in WIRES for verb in ("silent", "pause")]
    with ThreadPoolExecutor(len(cases)) as pool:
        list(pool.map(lambda case: waits(*case), cases))
print("passed")
