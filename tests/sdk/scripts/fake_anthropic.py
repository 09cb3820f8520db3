"""Anthropic's official SDK against the fake provider."""

import sys

import anthropic
from pydantic import BaseModel

URL, KEY, PNG = sys.argv[1], sys.argv[2], sys.argv[3]
client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"name": "weather", "description": "The weather", "input_schema": SCHEMA}]


class Trip(BaseModel):
    city: str
    days: int


def said(content, model="fake-chat"):
    return {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": content}]}


def plain_and_streamed():
    whole = client.messages.create(**said("Hello there"), system="Be brief.")
    assert whole.content[0].text == "You said: Hello there"
    assert (whole.stop_reason, whole.usage.input_tokens, whole.usage.output_tokens) == ("end_turn", 6, 6)
    assert whole._request_id
    assert client.messages.create(**said("Hello") | {"max_tokens": 1}).stop_reason == "max_tokens"

    with client.messages.stream(**said("Hello there")) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == final.content[0].text == "You said: Hello there"
    assert len(pieces) > 2
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 6)

    with client.messages.stream(**said("reason about it")) as stream:
        thought = stream.get_final_message().content[0]
    assert (thought.type, thought.thinking) == ("thinking", "Let me think.")
    assert thought.signature


def tools():
    for stream in (False, True):
        called = asked(said("the weather in Oslo"), stream)
        (call,) = [block for block in called.content if block.type == "tool_use"]
        assert (call.name, call.input) == ("weather", {"city": "the weather in Oslo"})
        assert called.stop_reason == "tool_use"
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "4 degrees"}
        question = said("the weather in Oslo")
        question["messages"] += [
            {"role": "assistant", "content": called.content},
            {"role": "user", "content": [result]},
        ]
        assert client.messages.create(**question, tools=TOOLS).content[0].text == "The tool said: 4 degrees"
    forced = client.messages.create(**said("Oslo"), tools=TOOLS, tool_choice={"type": "tool", "name": "weather"})
    assert forced.content[0].input == {"city": "Oslo"}


def asked(question, stream):
    if not stream:
        return client.messages.create(**question, tools=TOOLS)
    with client.messages.stream(**question, tools=TOOLS) as events:
        return events.get_final_message()


def forms():
    parsed = client.messages.parse(**said("Oslo"), output_format=Trip)
    assert parsed.parsed_output == Trip(city="Oslo", days=1)
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    seen = client.messages.create(**said([{"type": "text", "text": "Look"}, {"type": "image", "source": source}]))
    assert seen.content[0].text.startswith("You said: Look [image/png, ")
    assert [model.id for model in client.models.list()] == ["fake-chat", "fake-embed", "fake-image"]
    assert client.models.retrieve("fake-chat").id == "fake-chat"


def errors():
    stranger = anthropic.Anthropic(base_url=URL, api_key="sk-no", max_retries=0)
    fails(anthropic.AuthenticationError, stranger.messages.create, **said("hi"))
    for stream in (False, True):
        for status, kind in (
            (400, anthropic.BadRequestError),
            (401, anthropic.AuthenticationError),
            (403, anthropic.PermissionDeniedError),
            (404, anthropic.NotFoundError),
            (429, anthropic.RateLimitError),
            (500, anthropic.InternalServerError),
        ):
            error = fails(kind, client.messages.create, **said("hi", f"fault-{status}"), stream=stream)
            assert error.status_code == status
            assert error.request_id
        overloaded = fails(anthropic.APIStatusError, client.messages.create, **said("hi", "fault-529"), stream=stream)
        assert overloaded.body["error"]["type"] == "overloaded_error"
    fails(anthropic.NotFoundError, client.models.retrieve, "no-such")
    fails(anthropic.BadRequestError, client.messages.create, **said("hi") | {"messages": []})
    broken = fails(anthropic.APIStatusError, client.messages.create, **said("hi", "fault-error"), stream=True)
    assert broken.body["error"]["message"] == "The server had an error."


def fails(kind, call, *args, **fields):
    try:
        result = call(*args, **fields)
        for _ in result if fields.get("stream") else ():
            pass
    except kind as exc:
        error = exc
    else:
        raise AssertionError(f"expected {kind.__name__}")
    assert error.message
    return error


plain_and_streamed()
tools()
forms()
errors()
print("passed")
