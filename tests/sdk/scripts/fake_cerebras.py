"""Cerebras' official SDK against the fake provider."""

import json
import sys

import cerebras.cloud.sdk as sdk

URL, KEY, PNG = sys.argv[1], sys.argv[2], sys.argv[3]
client = sdk.Cerebras(base_url=URL, api_key=KEY, max_retries=0)  # it warms its connection up at once
create = client.chat.completions.create
MODEL = "fake-chat"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "It", "parameters": PARAMETERS}}]


def said(content):
    return [{"role": "user", "content": content}]


def plain_and_streamed():
    whole = create(model=MODEL, messages=[{"role": "system", "content": "Be brief."}, *said("Hello there")])
    assert whole.choices[0].message.content == "You said: Hello there"
    assert whole.choices[0].finish_reason == "stop"
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (6, 6)

    chunks = list(create(model=MODEL, messages=said("Hello there"), stream=True))
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert "".join(pieces) == "You said: Hello there"
    assert len(pieces) > 2
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.total_tokens == 9, "in the last chunk, unasked"

    thought = create(model=MODEL, messages=said("reason about it")).choices[0].message
    assert thought.reasoning == "Let me think."
    chunks = create(model=MODEL, messages=said("reason about it"), stream=True)
    assert "".join(chunk.choices[0].delta.reasoning or "" for chunk in chunks) == "Let me think."


def tools():
    called = create(model=MODEL, messages=said("the weather in Oslo"), tools=TOOLS).choices[0]
    assert called.finish_reason == "tool_calls"
    (call,) = called.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "the weather in Oslo"})
    arguments = [
        call.function.arguments
        for chunk in create(model=MODEL, messages=said("the weather in Oslo"), tools=TOOLS, stream=True)
        for call in chunk.choices[0].delta.tool_calls or ()
    ]
    assert json.loads("".join(arguments)) == {"city": "the weather in Oslo"}
    turns = [
        *said("the weather in Oslo"),
        called.message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "4 degrees"},
    ]
    assert create(model=MODEL, messages=turns, tools=TOOLS).choices[0].message.content == "The tool said: 4 degrees"


def forms():
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "trip", "schema": schema, "strict": True}}
    made = create(model=MODEL, messages=said("Oslo"), response_format=wanted)
    assert json.loads(made.choices[0].message.content) == {"city": "Oslo", "days": 1}
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    seen = create(model=MODEL, messages=said([{"type": "text", "text": "Look"}, picture]))
    assert seen.choices[0].message.content.startswith("You said: Look [image/png, ")
    assert client.completions.create(model=MODEL, prompt="Once").choices[0].text == "You wrote: Once"
    assert [model.id for model in client.models.list().data] == ["fake-chat", "fake-embed", "fake-image"]
    assert client.models.retrieve("fake-chat").id == "fake-chat"


def errors():
    stranger = sdk.Cerebras(base_url=URL, api_key="sk-no", max_retries=0, warm_tcp_connection=False)
    fails(sdk.AuthenticationError, stranger.chat.completions.create, model=MODEL, messages=said("hi"))
    for stream in (False, True):
        for status, kind in (
            (400, sdk.BadRequestError),
            (401, sdk.AuthenticationError),
            (404, sdk.NotFoundError),
            (429, sdk.RateLimitError),
            (500, sdk.InternalServerError),
        ):
            error = fails(kind, create, model=f"fault-{status}", messages=said("hi"), stream=stream)
            assert error.status_code == status
            assert error.body["code"], "flat, as Cerebras says it"
    broken = fails(sdk.APIError, create, model="fault-error", messages=said("hi"), stream=True)
    assert "The server had an error." in str(broken.body)


def fails(kind, call, **fields):
    try:
        result = call(**fields)
        for _ in result if fields.get("stream") else ():
            pass
    except kind as exc:
        return exc
    raise AssertionError(f"expected {kind.__name__}")


plain_and_streamed()
tools()
forms()
errors()
print("passed")
