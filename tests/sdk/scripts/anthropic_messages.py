"""Messages by Anthropic's official SDK, answered by a vendor that speaks another wire."""

import sys

import anthropic

URL, KEY = sys.argv[1:]
client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
MODEL = "fake/fake-1"
TOOLS = [{"name": "weather", "description": "The weather", "input_schema": {"type": "object", "properties": {}}}]


def said(text):
    return {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": text}]}


def fails(kind, call, **fields):
    try:
        call(**fields)
    except kind as exc:
        error = exc
    else:
        raise AssertionError(f"expected {kind.__name__}")
    assert type(error) is kind, type(error)
    assert error.message


assert MODEL in [each.id for each in client.models.list()]
whole = client.messages.create(**said("say Hello there"), system="be brief")
assert whole.content[0].text == "Hello there"
assert whole.stop_reason == "end_turn"
assert (whole.usage.input_tokens, whole.usage.output_tokens) == (3, 2)

with client.messages.stream(**said("slowly Hello there")) as stream:
    pieces = list(stream.text_stream)
    final = stream.get_final_message()
assert "".join(pieces) == "Hello there"
assert len(pieces) > 1
assert final.content[0].text == "Hello there"

with client.messages.stream(**said("call weather"), tools=TOOLS) as stream:
    called = stream.get_final_message()
(call,) = [block for block in called.content if block.type == "tool_use"]
assert (call.name, call.input, called.stop_reason) == ("weather", {"city": "Paris"}, "tool_use")

asked = said("call weather")
asked["messages"] += [
    {"role": "assistant", "content": called.content},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "say 21 C"}]},
]
assert client.messages.create(**asked, tools=TOOLS).content[0].text == "21 C"

fails(anthropic.AuthenticationError, anthropic.Anthropic(base_url=URL, api_key="sk-no").messages.create, **said("hi"))
fails(anthropic.NotFoundError, client.messages.create, **said("hi") | {"model": "nobody/nothing"})
fails(anthropic.RateLimitError, client.messages.create, **said("fail rate_limited"))
fails(anthropic.BadRequestError, client.messages.create, **said("hi") | {"messages": []})
print("passed")
