"""Gemini's official SDK, answered by a vendor that speaks another wire."""

import sys

from google import genai
from google.genai import errors, types

URL, KEY = sys.argv[1:]
MODEL = "fake-1"


def client_with(key):
    return genai.Client(api_key=key, vertexai=False, http_options=types.HttpOptions(base_url=URL))


def fails(code, call, **fields):
    try:
        call(**fields)
    except errors.APIError as exc:
        error = exc
    else:
        raise AssertionError(f"expected {code}")
    assert error.code == code, error
    assert error.message


client = client_with(KEY)
whole = client.models.generate_content(model=MODEL, contents="say Hello there")
assert whole.text == "Hello there"
assert whole.candidates[0].finish_reason == types.FinishReason.STOP
assert whole.usage_metadata.total_token_count == 5

pieces = [
    chunk.text or "" for chunk in client.models.generate_content_stream(model=MODEL, contents="slowly Hello there")
]
assert "".join(pieces) == "Hello there"
assert len([piece for piece in pieces if piece]) > 1

weather = types.FunctionDeclaration(name="weather", parameters=types.Schema(type="OBJECT", properties={}))
config = types.GenerateContentConfig(
    tools=[types.Tool(function_declarations=[weather])],
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
)
called = client.models.generate_content(model=MODEL, contents="call weather", config=config)
(call,) = called.function_calls
assert (call.name, call.args) == ("weather", {"city": "Paris"})

vectors = client.models.embed_content(model=MODEL, contents=["one", "three"])
assert [each.values[0] for each in vectors.embeddings] == [3.0, 5.0]

stranger = client_with("sk-no")  # it closes itself when it is not held
fails(401, stranger.models.generate_content, model=MODEL, contents="hi")
fails(404, client.models.generate_content, model="nothing", contents="hi")
fails(429, client.models.generate_content, model=MODEL, contents="fail rate_limited")
print("passed")
