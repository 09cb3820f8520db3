"""Google's official SDK against the fake provider."""

import base64
import sys

from google import genai
from google.genai import errors, types
from pydantic import BaseModel

URL, KEY, PNG = sys.argv[1], sys.argv[2], sys.argv[3]


def client_with(key):
    return genai.Client(api_key=key, vertexai=False, http_options=types.HttpOptions(base_url=URL))


client = client_with(KEY)
models = client.models
MODEL = "fake-chat"
WEATHER = types.FunctionDeclaration(
    name="weather", parameters=types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING")})
)
TOOLS = types.GenerateContentConfig(
    tools=[types.Tool(function_declarations=[WEATHER])],
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
)


class Trip(BaseModel):
    city: str
    days: int


def plain_and_streamed():
    config = types.GenerateContentConfig(system_instruction="Be brief.")
    whole = models.generate_content(model=MODEL, contents="Hello there", config=config)
    assert whole.text == "You said: Hello there"
    assert whole.candidates[0].finish_reason == types.FinishReason.STOP
    assert (whole.usage_metadata.prompt_token_count, whole.usage_metadata.candidates_token_count) == (6, 6)
    short = models.generate_content(
        model=MODEL, contents="Hello", config=types.GenerateContentConfig(max_output_tokens=1)
    )
    assert short.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS

    chunks = list(models.generate_content_stream(model=MODEL, contents="Hello there"))
    assert "".join(chunk.text or "" for chunk in chunks) == "You said: Hello there"
    assert len(chunks) > 3
    assert chunks[-1].usage_metadata.total_token_count == 9

    thought = models.generate_content(model=MODEL, contents="reason about it").candidates[0].content.parts[0]
    assert (thought.thought, thought.text) == (True, "Let me think.")


def tools():
    question = types.Content(role="user", parts=[types.Part(text="the weather in Oslo")])
    whole = models.generate_content(model=MODEL, contents=[question], config=TOOLS)
    streamed = list(models.generate_content_stream(model=MODEL, contents=[question], config=TOOLS))
    calls = [call for chunk in streamed for call in chunk.function_calls or ()]
    for call in (whole.function_calls[0], calls[0]):
        assert (call.name, call.args) == ("weather", {"city": "the weather in Oslo"})
    result = types.Part.from_function_response(name="weather", response={"output": "4 degrees"})
    turns = [question, whole.candidates[0].content, types.Content(role="user", parts=[result])]
    assert "4 degrees" in models.generate_content(model=MODEL, contents=turns, config=TOOLS).text

    def weather(city: str) -> str:
        """The weather in a city."""
        return f"4 degrees: {city}"

    called = models.generate_content(
        model=MODEL, contents="the weather in Oslo", config=types.GenerateContentConfig(tools=[weather])
    )
    assert "4 degrees: the weather in Oslo" in called.text, "the SDK's own loop"


def forms():
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=Trip)
    assert models.generate_content(model=MODEL, contents="Oslo", config=config).parsed == Trip(city="Oslo", days=1)
    picture = types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png")
    assert models.generate_content(model=MODEL, contents=["Look", picture]).text.startswith("You said: Look [image/png")

    vectors = models.embed_content(
        model="fake-embed", contents=["one", "two"], config=types.EmbedContentConfig(output_dimensionality=8)
    )
    assert [len(each.values) for each in vectors.embeddings] == [8, 8]

    drawn = models.generate_content(
        model="fake-image",
        contents="a cat",
        config=types.GenerateContentConfig(response_modalities=["TEXT", "IMAGE"]),
    )
    (part,) = drawn.candidates[0].content.parts
    assert part.inline_data.data.startswith(b"\x89PNG")

    assert [model.name for model in models.list()] == ["models/fake-chat", "models/fake-embed", "models/fake-image"]
    assert models.get(model="fake-chat").name == "models/fake-chat"


def failures():
    stranger = client_with("sk-no")  # it closes itself when it is not held
    assert fails(400, errors.ClientError, stranger.models.generate_content, model=MODEL).message.startswith("API key")
    for call in (models.generate_content, models.generate_content_stream):
        for status, kind, word in (
            (400, errors.ClientError, "INVALID_ARGUMENT"),
            (401, errors.ClientError, "UNAUTHENTICATED"),
            (404, errors.ClientError, "NOT_FOUND"),
            (429, errors.ClientError, "RESOURCE_EXHAUSTED"),
            (500, errors.ServerError, "INTERNAL"),
            (503, errors.ServerError, "UNAVAILABLE"),
        ):
            assert fails(status, kind, call, model=f"fault-{status}").status == word
    broken = fails(502, errors.ServerError, models.generate_content_stream, model="fault-error")
    assert broken.message == "The server had an error."


def fails(status, kind, call, **fields):
    try:
        for _ in call(contents="hi", **fields):
            pass
    except kind as exc:
        error = exc
    else:
        raise AssertionError(f"expected {status}")
    assert error.code == status, error
    return error


plain_and_streamed()
tools()
forms()
failures()
print("passed")
