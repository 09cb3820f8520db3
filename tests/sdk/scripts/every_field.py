"""Any vendor's SDK, told on its standard input what to ask: once its vendor and once the daemon, line by line.

A line is ``{"endpoint": …, "fields": {…}, "stream": false}``; the answer is what the SDK made of both, or why not.
"""

import importlib
import json
import sys


def openai(url, key):
    client = importlib.import_module("openai").OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    return {
        "openai chat": client.chat.completions.create,
        "openai responses": client.responses.create,
        "openai embeddings": client.embeddings.create,
        "openai images": client.images.generate,
    }


def anthropic(url, key):
    client = importlib.import_module("anthropic").Anthropic(base_url=url, api_key=key, max_retries=0)
    return {"anthropic messages": client.messages.create, "anthropic beta messages": client.beta.messages.create}


def cerebras(url, key):
    sdk = importlib.import_module("cerebras.cloud.sdk")
    client = sdk.Cerebras(base_url=url, api_key=key, max_retries=0, warm_tcp_connection=False)
    return {"cerebras chat": client.chat.completions.create}


def cohere(url, key):
    client = importlib.import_module("cohere").ClientV2(api_key=key, base_url=url)

    def chat(*, stream, **fields):
        return client.chat_stream(**fields) if stream else client.chat(**fields)

    def embed(*, stream, **fields):
        return client.embed(**fields)

    return {"cohere chat": chat, "cohere embed": embed}


def gemini(url, key):
    genai = importlib.import_module("google.genai")
    types = importlib.import_module("google.genai.types")
    client = genai.Client(api_key=key, vertexai=False, http_options=types.HttpOptions(base_url=url))

    def generate(*, stream, model, **fields):
        config = types.GenerateContentConfig.model_validate(fields)
        call = client.models.generate_content_stream if stream else client.models.generate_content
        return call(model=model, contents="hi", config=config)

    generate.client = client  # it closes itself when it is not held
    return {"gemini generationConfig": generate, "gemini generateContent": generate}


def dumped(answer):
    """What the SDK says that it was told."""
    said = (
        answer.model_dump(mode="json", by_alias=True, exclude_unset=True) if hasattr(answer, "model_dump") else answer
    )
    said.pop("sdkHttpResponse", None)
    return said


def ask(call, fields, stream):
    """The answer, or all events of its stream; or the error in words."""
    try:
        answer = call(**fields, stream=stream) if stream or call.__module__ == __name__ else call(**fields)
        return {"told": [dumped(each) for each in answer] if stream else dumped(answer)}
    except Exception as exc:
        return {"error": f"{type(exc).__name__}: {exc}"}


VENDOR, DAEMON, KEY, SDK = sys.argv[1:]
at_vendor, at_daemon = globals()[SDK](VENDOR, KEY), globals()[SDK](DAEMON, KEY)
for line in sys.stdin:
    job = json.loads(line)
    both = [ask(calls[job["endpoint"]], job["fields"], job["stream"]) for calls in (at_vendor, at_daemon)]
    print(json.dumps(both), flush=True)
