"""A panel, asked by the official SDK, which only knows a model's name."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2], max_retries=0)
SAY = [{"role": "user", "content": "say Hello there"}]

whole = client.chat.completions.create(model="panel", messages=SAY)
assert whole.choices[0].message.content == "Hello there"
assert whole.usage.completion_tokens == 6, "of all three members"

pieces = []
for chunk in client.chat.completions.create(model="panel", messages=SAY, stream=True):
    pieces += [choice.delta.content or "" for choice in chunk.choices]
assert "".join(pieces) == "Hello there"

response = client.responses.create(model="panel", input="say Hello there")
assert response.output_text == "Hello there"
members = response.llm_runtime["members"]
assert [member["member"] for member in members] == ["fake/fake-1", "fake/fake-1#2", "fake/fake-1#3"]
assert all(member["content"] == "Hello there" for member in members)

types, text = [], ""
for event in client.responses.create(model="panel", input="say Hello there", stream=True):
    types.append(event.type)
    text += event.delta if event.type == "response.output_text.delta" else ""
assert text == "Hello there"
assert all(kind.startswith("response.") for kind in types)

# A model makes the answer: it is shown the members' answers, and this one repeats what it is told.
made = client.responses.create(model="chaired", input="say Hello there")
assert made.output_text.count("Hello there") >= 3
assert made.llm_runtime["decision"]["synthesis"] == {"by": "fake/fake-1", "outcome": "ok"}

with client.responses.stream(model="chaired", input="say Hello there") as stream:
    for _ in stream:
        pass
    assert stream.get_final_response().output_text.count("Hello there") >= 3

failed = None
try:
    client.chat.completions.create(model="panel", messages=[{"role": "user", "content": "fail auth"}])
except openai.APIStatusError as error:
    failed = error
assert failed is not None, "a panel of which nobody answers is an error"
assert failed.status_code == 424, failed.status_code
assert "none of 3 members answered" in str(failed)

print("passed")
