"""Cohere's official SDK, answered by a vendor that speaks another wire."""

import sys

import cohere
from cohere.core.api_error import ApiError

URL, KEY = sys.argv[1:]
client = cohere.ClientV2(api_key=KEY, base_url=URL)
MODEL = "fake/fake-1"
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


def said(text):
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


def fails(status, call, **fields):
    try:
        call(**fields)
    except ApiError as exc:
        error = exc
    else:
        raise AssertionError(f"expected {status}")
    assert error.status_code == status, error
    assert error.body["message"] if isinstance(error.body, dict) else error.body.message


whole = client.chat(**said("say Hello there"))
assert whole.message.content[0].text == "Hello there"
assert whole.finish_reason == "COMPLETE"

pieces = [
    event.delta.message.content.text
    for event in client.chat_stream(**said("slowly Hello there"))
    if event.type == "content-delta"
]
assert "".join(pieces) == "Hello there"
assert len(pieces) > 1

called = client.chat(**said("call weather"), tools=TOOLS)
(call,) = called.message.tool_calls
assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Paris"}')

vectors = client.embed(model=MODEL, texts=["one", "three"], input_type="search_query", embedding_types=["float"])
assert [each[0] for each in vectors.embeddings.float_] == [3.0, 5.0]

fails(401, cohere.ClientV2(api_key="sk-no", base_url=URL).chat, **said("hi"))
fails(404, client.chat, **said("hi") | {"model": "nobody/nothing"})
print("passed")
