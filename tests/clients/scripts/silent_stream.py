"""Read one stream with a wire's own client and print its text: ``silent_stream.py CLIENT URL [KEY MODEL PROMPT]``."""

import asyncio
import sys

CLIENT, URL, *MORE = sys.argv[1:]
KEY, MODEL, PROMPT = MORE or ("k", "m", "hi")
SAID = [{"role": "user", "content": PROMPT}]


def openai_chat():
    from openai import OpenAI

    client = OpenAI(base_url=URL + "/v1", api_key=KEY)
    for chunk in client.chat.completions.create(model=MODEL, messages=SAID, stream=True):
        yield chunk.choices[0].delta.content if chunk.choices else ""


def openai_responses():
    from openai import OpenAI

    with OpenAI(base_url=URL + "/v1", api_key=KEY).responses.stream(model=MODEL, input=PROMPT) as stream:
        yield stream.get_final_response().output_text


def anthropic():
    from anthropic import Anthropic

    client = Anthropic(base_url=URL, api_key=KEY)
    with client.messages.stream(model=MODEL, max_tokens=99, messages=SAID) as stream:
        yield from stream.text_stream


def google():
    from google import genai

    client = genai.Client(api_key=KEY, http_options={"base_url": URL})
    for chunk in client.models.generate_content_stream(model=MODEL, contents=PROMPT):
        yield chunk.text


def google_async():
    from google import genai

    async def read():
        client = genai.Client(api_key=KEY, http_options={"base_url": URL})
        stream = await client.aio.models.generate_content_stream(model=MODEL, contents=PROMPT)
        return [chunk.text async for chunk in stream]

    yield from asyncio.run(read())


def cohere():
    from cohere import ClientV2

    for event in ClientV2(api_key=KEY, base_url=URL).chat_stream(model=MODEL, messages=SAID):
        if event.type == "content-delta":
            yield event.delta.message.content.text


def litellm(model, base):
    import litellm as lite

    for chunk in lite.completion(model=model, api_base=base, api_key=KEY, messages=SAID, stream=True):
        yield chunk.choices[0].delta.content


def litellm_gemini():
    yield from litellm(f"gemini/{MODEL}", URL + "/v1beta")


def litellm_anthropic():
    yield from litellm(f"anthropic/{MODEL}", URL)


def litellm_openai():
    yield from litellm(f"openai/{MODEL}", URL + "/v1")


print("".join(piece or "" for piece in globals()[CLIENT]()))
