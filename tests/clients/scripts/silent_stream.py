"""Read one stream with a wire's own client and print its text: ``silent_stream.py CLIENT URL``."""

import asyncio
import sys

CLIENT, URL = sys.argv[1:]
SAID = [{"role": "user", "content": "hi"}]


def openai_chat():
    from openai import OpenAI

    client = OpenAI(base_url=URL + "/v1", api_key="k")
    for chunk in client.chat.completions.create(model="m", messages=SAID, stream=True):
        yield chunk.choices[0].delta.content if chunk.choices else ""


def openai_responses():
    from openai import OpenAI

    with OpenAI(base_url=URL + "/v1", api_key="k").responses.stream(model="m", input="hi") as stream:
        yield stream.get_final_response().output_text


def anthropic():
    from anthropic import Anthropic

    client = Anthropic(base_url=URL, api_key="k")
    with client.messages.stream(model="m", max_tokens=9, messages=SAID) as stream:
        yield from stream.text_stream


def google():
    from google import genai

    client = genai.Client(api_key="k", http_options={"base_url": URL})
    for chunk in client.models.generate_content_stream(model="m", contents="hi"):
        yield chunk.text


def google_async():
    from google import genai

    async def read():
        client = genai.Client(api_key="k", http_options={"base_url": URL})
        stream = await client.aio.models.generate_content_stream(model="m", contents="hi")
        return [chunk.text async for chunk in stream]

    yield from asyncio.run(read())


def cohere():
    from cohere import ClientV2

    for event in ClientV2(api_key="k", base_url=URL).chat_stream(model="m", messages=SAID):
        if event.type == "content-delta":
            yield event.delta.message.content.text


def litellm(model, base):
    import litellm as lite

    for chunk in lite.completion(model=model, api_base=base, api_key="k", messages=SAID, stream=True):
        yield chunk.choices[0].delta.content


def litellm_gemini():
    yield from litellm("gemini/m", URL + "/v1beta")


def litellm_anthropic():
    yield from litellm("anthropic/m", URL)


def litellm_openai():
    yield from litellm("openai/m", URL + "/v1")


print("".join(piece or "" for piece in globals()[CLIENT]()))
