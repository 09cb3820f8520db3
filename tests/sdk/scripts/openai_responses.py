"""The Responses API over HTTP by the official SDK."""

import sys
import time

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2], max_retries=0)
MODEL = "fake/fake-1"
TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}]

whole = client.responses.create(model=MODEL, input="say Hello there", instructions="be brief")
assert whole.output_text == "Hello there"
assert whole.status == "completed"
assert whole.usage.total_tokens == 5
assert client.responses.retrieve(whole.id).output_text == "Hello there"

types, text = [], ""
for event in client.responses.create(model=MODEL, input="say Hello there", stream=True):
    types.append(event.type)
    if event.type == "response.output_text.delta":
        text += event.delta
assert text == "Hello there"
assert types[0] == "response.created"
assert types[-1] == "response.completed"

with client.responses.stream(model=MODEL, input="say Hello there") as stream:
    for _ in stream:
        pass
    assert stream.get_final_response().output_text == "Hello there"

called = client.responses.create(model=MODEL, input="call weather", tools=TOOLS)
(call,) = [item for item in called.output if item.type == "function_call"]
assert (call.name, call.arguments) == ("weather", '{"city":"Paris"}')
answer = {"type": "function_call_output", "call_id": call.call_id, "output": "say 21 C"}
after = client.responses.create(model=MODEL, previous_response_id=called.id, input=[answer], tools=TOOLS)
assert after.output_text == "21 C"

begun = client.responses.create(model=MODEL, input="slowly Hello there", background=True)
assert begun.status in ("queued", "in_progress")
deadline = time.monotonic() + 10
while (now := client.responses.retrieve(begun.id)).status in ("queued", "in_progress"):
    assert time.monotonic() < deadline
    time.sleep(0.05)
assert now.output_text == "Hello there"

seen, text = -1, ""
for event in client.responses.create(model=MODEL, input="slowly Hello there", background=True, stream=True):
    if event.type == "response.created":
        response_id = event.response.id
    seen = event.sequence_number
    if event.type == "response.output_text.delta":
        text += event.delta
        break
for event in client.responses.retrieve(response_id, stream=True, starting_after=seen):
    assert event.sequence_number > seen
    if event.type == "response.output_text.delta":
        text += event.delta
assert text == "Hello there"
with client.responses.stream(response_id=response_id) as stream:
    for _ in stream:
        pass
    assert stream.get_final_response().output_text == "Hello there"

endless = client.responses.create(model=MODEL, input="hang", background=True)
assert client.responses.cancel(endless.id).status == "cancelled"
client.responses.delete(whole.id)
try:
    client.responses.retrieve(whole.id)
except openai.NotFoundError as exc:
    code = exc.code
assert code == "response_not_found"

for event in client.responses.create(model=MODEL, input="break Half", stream=True):
    last = event
assert last.type == "response.failed", last
assert last.response.output_text == "Half"
print("passed")
