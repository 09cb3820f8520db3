"""Chat completions, completions, embeddings and models by the official SDK."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2], max_retries=0)
MODEL = "fake/fake-1"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def said(text):
    return [{"role": "user", "content": text}]


assert MODEL in [each.id for each in client.models.list()]
assert client.models.retrieve(MODEL).id == MODEL

whole = client.chat.completions.create(model=MODEL, messages=said("say Hello there"))
assert whole.choices[0].message.content == "Hello there", whole
assert whole.choices[0].finish_reason == "stop"
assert whole.usage.total_tokens == 5
assert whole._request_id

raw = client.chat.completions.with_raw_response.create(model="fake-1", messages=said("say Hello"))
assert raw.headers["x-request-id"] == raw.parse()._request_id

pieces, usage = [], None
for chunk in client.chat.completions.create(
    model=MODEL, messages=said("slowly Hello there"), stream=True, stream_options={"include_usage": True}
):
    usage = chunk.usage or usage
    pieces += [choice.delta.content or "" for choice in chunk.choices]
assert "".join(pieces) == "Hello there"
assert len([piece for piece in pieces if piece]) > 1, "streamed, not handed over at once"
assert usage.prompt_tokens == 3

called = client.chat.completions.create(model=MODEL, messages=said("call weather"), tools=TOOLS)
call = called.choices[0].message.tool_calls[0]
assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Paris"}')
assert called.choices[0].finish_reason == "tool_calls"

with client.chat.completions.stream(model=MODEL, messages=said("call weather"), tools=TOOLS) as stream:
    for _ in stream:
        pass
    final = stream.get_final_completion()
assert final.choices[0].message.tool_calls[0].function.arguments == '{"city":"Paris"}'

answered = client.chat.completions.create(
    model=MODEL,
    tools=TOOLS,
    messages=[
        *said("call weather"),
        called.choices[0].message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "say 21 C"},
    ],
)
assert answered.choices[0].message.content == "21 C"

several = client.chat.completions.create(model=MODEL, messages=said("say Hello there"), n=3)
assert [(each.index, each.message.content) for each in several.choices] == [(at, "Hello there") for at in range(3)]
with client.chat.completions.stream(model=MODEL, messages=said("say Hello there"), n=2) as stream:
    streamed = stream.get_final_completion()
assert [each.message.content for each in streamed.choices] == ["Hello there", "Hello there"]
print("passed")
