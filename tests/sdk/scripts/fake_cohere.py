"""Cohere's official SDK against the fake provider."""

import json
import sys

import cohere
from cohere.core.api_error import ApiError

URL, KEY, PNG = sys.argv[1], sys.argv[2], sys.argv[3]
client = cohere.ClientV2(api_key=KEY, base_url=URL)
OFF = {"max_retries": 0}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "It", "parameters": PARAMETERS}}]


def said(content, model="fake-chat"):
    return {"model": model, "messages": [{"role": "user", "content": content}], "request_options": OFF}


def plain_and_streamed():
    question = said("Hello there")
    question["messages"].insert(0, {"role": "system", "content": "Be brief."})
    whole = client.chat(**question)
    assert whole.message.content[0].text == "You said: Hello there"
    assert whole.finish_reason == "COMPLETE"
    assert (whole.usage.tokens.input_tokens, whole.usage.tokens.output_tokens) == (6, 6)
    assert client.chat(**said("Hello"), max_tokens=1).finish_reason == "MAX_TOKENS"

    events = list(client.chat_stream(**said("Hello there")))
    pieces = [event.delta.message.content.text for event in events if event.type == "content-delta"]
    assert "".join(pieces) == "You said: Hello there"
    assert len(pieces) > 2
    assert (events[0].type, events[-1].type) == ("message-start", "message-end")
    assert events[-1].delta.finish_reason == "COMPLETE"
    assert events[-1].delta.usage.tokens.output_tokens == 6

    thought = client.chat(**said("reason about it")).message.content[0]
    assert (thought.type, thought.thinking) == ("thinking", "Let me think.")


def tools():
    called = client.chat(**said("the weather in Oslo"), tools=TOOLS)
    assert called.finish_reason == "TOOL_CALL"
    (call,) = called.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "the weather in Oslo"})
    events = list(client.chat_stream(**said("the weather in Oslo"), tools=TOOLS))
    arguments = [
        event.delta.message.tool_calls.function.arguments for event in events if event.type == "tool-call-delta"
    ]
    assert json.loads("".join(arguments)) == {"city": "the weather in Oslo"}
    question = said("the weather in Oslo")
    question["messages"] += [called.message, {"role": "tool", "tool_call_id": call.id, "content": "4 degrees"}]
    assert client.chat(**question, tools=TOOLS).message.content[0].text == "The tool said: 4 degrees"
    assert client.chat(**said("Oslo"), tools=TOOLS, tool_choice="REQUIRED").message.tool_calls


def forms():
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
    made = client.chat(**said("Oslo"), response_format={"type": "json_object", "json_schema": schema})
    assert json.loads(made.message.content[0].text) == {"city": "Oslo", "days": 1}
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    seen = client.chat(**said([{"type": "text", "text": "Look"}, picture]))
    assert seen.message.content[0].text.startswith("You said: Look [image/png, ")
    vectors = client.embed(
        model="fake-embed", texts=["one", "two"], input_type="search_query", embedding_types=["float"],
        output_dimension=8,
    )  # fmt: skip
    assert [len(vector) for vector in vectors.embeddings.float_] == [8, 8]
    assert vectors.meta.billed_units.input_tokens == 2
    assert [model.name for model in client.models.list(page_size=10).models] == [
        "fake-chat",
        "fake-embed",
        "fake-image",
    ]
    assert client.models.get("fake-chat").name == "fake-chat"


def errors():
    stranger = cohere.ClientV2(api_key="sk-no", base_url=URL)
    fails(401, cohere.UnauthorizedError, stranger.chat, **said("hi"))
    for call in (client.chat, client.chat_stream):
        for status, kind in (
            (400, cohere.BadRequestError),
            (401, cohere.UnauthorizedError),
            (403, cohere.ForbiddenError),
            (404, cohere.NotFoundError),
            (429, cohere.TooManyRequestsError),
            (500, cohere.InternalServerError),
            (503, cohere.ServiceUnavailableError),
        ):
            fails(status, kind, call, **said("hi", f"fault-{status}"))
    last = list(client.chat_stream(**said("hi", "fault-error")))[-1]
    assert (last.type, last.delta.finish_reason) == ("message-end", "ERROR")
    assert last.delta.error == "The server had an error."


def fails(status, kind, call, **fields):
    try:
        for _ in call(**fields):
            pass
    except ApiError as exc:
        error = exc
    else:
        raise AssertionError(f"expected {status}")
    assert type(error) is kind, type(error)
    assert error.status_code == status
    assert error.body["message"] if isinstance(error.body, dict) else error.body.message


plain_and_streamed()
tools()
forms()
errors()
print("passed")
