"""OpenAI's official SDK against the fake provider: both of its chat APIs, vectors, pictures, models, errors."""

import base64
import json
import sys

import openai
from pydantic import BaseModel

URL, KEY, PNG = sys.argv[1], sys.argv[2], sys.argv[3]
client = openai.OpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0)
MODEL = "fake-chat"
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
CHAT_TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS, "strict": True}}]
TOOLS = [{"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}]


class Trip(BaseModel):
    city: str
    days: int


def said(text):
    return [{"role": "user", "content": text}]


def chat_completions():
    create = client.chat.completions.create
    whole = create(model=MODEL, messages=[{"role": "developer", "content": "Be brief."}, *said("Hello there")])
    assert whole.choices[0].message.content == "You said: Hello there"
    assert whole.choices[0].finish_reason == "stop"
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (6, 6, 12)
    assert whole._request_id
    assert create(model=MODEL, messages=said("Hello"), max_completion_tokens=1).choices[0].finish_reason == "length"

    chunks = list(
        create(model=MODEL, messages=said("Hello there"), stream=True, stream_options={"include_usage": True})
    )
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert "".join(pieces) == "You said: Hello there"
    assert len(pieces) > 2
    assert chunks[-1].usage.total_tokens == 9

    for stream in (False, True):
        called = chat_called(said("the weather in Oslo"), stream)
        call = called.tool_calls[0]
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "the weather in Oslo"})
        result = {"role": "tool", "tool_call_id": call.id, "content": "4 degrees"}
        after = create(model=MODEL, messages=[*said("the weather in Oslo"), called.to_dict(), result], tools=CHAT_TOOLS)
        assert after.choices[0].message.content == "The tool said: 4 degrees"

    parsed = client.chat.completions.parse(model=MODEL, messages=said("Oslo"), response_format=Trip)
    assert parsed.choices[0].message.parsed == Trip(city="Oslo", days=1)

    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    seen = create(model=MODEL, messages=said([{"type": "text", "text": "Look"}, picture]))
    assert seen.choices[0].message.content.startswith("You said: Look [image/png, ")


def chat_called(messages, stream):
    if not stream:
        return client.chat.completions.create(model=MODEL, messages=messages, tools=CHAT_TOOLS).choices[0].message
    with client.chat.completions.stream(model=MODEL, messages=messages, tools=CHAT_TOOLS) as events:
        for _ in events:
            pass
        return events.get_final_completion().choices[0].message


def responses():
    create = client.responses.create
    whole = create(model=MODEL, input="Hello there", instructions="Be brief.")
    assert whole.output_text == "You said: Hello there"
    assert (whole.status, whole.usage.input_tokens, whole.usage.output_tokens) == ("completed", 6, 6)
    assert create(model=MODEL, input="Hello", max_output_tokens=1).incomplete_details.reason == "max_output_tokens"

    with client.responses.stream(model=MODEL, input="Hello there") as events:
        pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
        final = events.get_final_response()
    assert "".join(pieces) == final.output_text == "You said: Hello there"
    assert len(pieces) > 2

    called = create(model=MODEL, input="the weather in Oslo", tools=TOOLS)
    (call,) = [item for item in called.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"city": "the weather in Oslo"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "4 degrees"}
    after = create(model=MODEL, input=[*said("the weather in Oslo"), *called.output, result], tools=TOOLS)
    assert after.output_text == "The tool said: 4 degrees"
    with client.responses.stream(model=MODEL, input="the weather in Oslo", tools=TOOLS) as events:
        done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert json.loads(done[0].arguments) == {"city": "the weather in Oslo"}

    parsed = client.responses.parse(model=MODEL, input="Oslo", text_format=Trip)
    assert parsed.output_parsed == Trip(city="Oslo", days=1)

    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"}
    seen = create(model=MODEL, input=said([{"type": "input_text", "text": "Look"}, picture]))
    assert seen.output_text.startswith("You said: Look [image/png, ")


def the_rest():
    vectors = client.embeddings.create(model="fake-embed", input=["one", "two"], dimensions=8)
    assert [len(item.embedding) for item in vectors.data] == [8, 8]
    assert vectors.usage.prompt_tokens == 2
    plain = client.embeddings.create(model="fake-embed", input="one", dimensions=8, encoding_format="float")
    assert plain.data[0].embedding == vectors.data[0].embedding

    pictures = client.images.generate(model="fake-image", prompt="a cat", n=2)
    assert [item.b64_json[:8] for item in pictures.data] == ["iVBORw0K"] * 2
    shown = [("a.png", base64.b64decode(item.b64_json), "image/png") for item in pictures.data]
    changed = client.images.edit(model="fake-image", prompt="a hat", image=shown, mask=shown[0], n=2)
    alone = client.images.edit(model="fake-image", prompt="a hat", image=shown[0], n=1)
    assert len({item.b64_json for item in [*changed.data, *alone.data]}) == 3

    done = client.completions.create(model=MODEL, prompt="Once")
    assert done.choices[0].text == "You wrote: Once"
    assert "".join(c.choices[0].text for c in client.completions.create(model=MODEL, prompt="Once", stream=True)) == (
        "You wrote: Once"
    )
    assert [model.id for model in client.models.list()] == ["fake-chat", "fake-embed", "fake-image"]
    assert client.models.retrieve("fake-chat").id == "fake-chat"


def errors():
    stranger = openai.OpenAI(base_url=URL + "/v1", api_key="sk-no", max_retries=0)
    fails(openai.AuthenticationError, stranger.models.list)
    for api, question in (
        (client.chat.completions.create, {"messages": said("hi")}),
        (client.responses.create, {"input": "hi"}),
    ):
        for stream in (False, True):
            for status, kind in (
                (400, openai.BadRequestError),
                (401, openai.AuthenticationError),
                (404, openai.NotFoundError),
                (429, openai.RateLimitError),
                (500, openai.InternalServerError),
                (503, openai.InternalServerError),
            ):
                error = fails(kind, api, model=f"fault-{status}", stream=stream, **question)
                assert error.status_code == status
    assert error.body["code"] == "server_is_overloaded"
    fails(openai.NotFoundError, client.models.retrieve, "no-such")
    malformed = fails(openai.BadRequestError, client.chat.completions.create, model=MODEL, messages=[])
    assert malformed.param == "messages"

    broken = fails(
        openai.APIError, client.chat.completions.create, model="fault-error", messages=said("hi"), stream=True
    )
    assert broken.message == "The server had an error."
    last = list(client.responses.create(model="fault-error", input="hi", stream=True))[-1]
    assert last.type == "response.failed"
    assert last.response.error.message == "The server had an error."


def fails(kind, call, *args, **fields):
    try:
        result = call(*args, **fields)
        for _ in result if fields.get("stream") else ():
            pass
    except kind as exc:
        error = exc
    else:
        raise AssertionError(f"expected {kind.__name__}")
    assert type(error) is kind, type(error)
    assert error.message
    return error


chat_completions()
responses()
the_rest()
errors()
print("passed")
