"""Which class of the official SDK each error becomes, and what it retries."""

import sys

import openai

URL, KEY = sys.argv[1] + "/v1", sys.argv[2]
client = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0)
MODEL = "fake/fake-1"


def said(text):
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


def fails(kind, code, call, **fields):
    try:
        result = call(**fields)
        for _ in result if fields.get("stream") else ():
            pass
    except kind as exc:
        error = exc
    else:
        raise AssertionError(f"expected {kind.__name__} {code}")
    assert type(error) is kind, type(error)
    assert error.code == code, (error.code, error.message)
    assert error.message


chat, responses = client.chat.completions.create, client.responses.create
fails(openai.AuthenticationError, "invalid_api_key", openai.OpenAI(base_url=URL, api_key="sk-no").models.list)
fails(openai.NotFoundError, "model_not_found", chat, **said("hi") | {"model": "nobody/nothing"})
fails(openai.NotFoundError, "model_not_found", responses, model="nobody/nothing", input="hi")
fails(openai.BadRequestError, "invalid_request", chat, model=MODEL, messages=[])
fails(
    openai.BadRequestError, "previous_response_not_found", responses, model=MODEL, input="hi", previous_response_id="r"
)
for stream in (False, True):
    fails(openai.BadRequestError, "context_length_exceeded", chat, **said("fail context_length"), stream=stream)
    fails(openai.RateLimitError, "rate_limit_exceeded", chat, **said("fail rate_limited"), stream=stream)
fails(openai.APIError, "server_error", chat, **said("break Half"), stream=True)

retrying = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=2)
fails(
    openai.BadRequestError, "context_length_exceeded", retrying.chat.completions.create, **said("fail context_length ")
)
print("passed")
