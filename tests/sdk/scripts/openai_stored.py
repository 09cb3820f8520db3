"""Stored responses and the WebSocket by the official SDK, on every kind of end."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2], max_retries=0)
MODEL = "fake/fake-1"
TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}]
ENDS = {
    "say Hello there": ("completed", "response.completed"),
    "call weather": ("completed", "response.completed"),
    "cut Half": ("incomplete", "response.incomplete"),
    "break Half": ("failed", "response.failed"),
    "hang Half": ("cancelled", "response.incomplete"),
}
TERMINAL = ("response.completed", "response.incomplete", "response.failed")


def text_of(events):
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def read(connection, *, cancels):
    """The events of one response, which is cancelled if it hangs."""
    events = []
    for event in connection:
        if event.type.startswith("llm-runtime:"):
            continue
        events.append(event)
        if cancels and event.type == "response.output_text.delta" and event.delta.endswith("…"):
            connection.send({"type": "response.cancel", "response_id": events[0].response.id})
        if event.type in TERMINAL:
            return events
    raise AssertionError("the connection ended in mid-response")


for asked, (status, last_type) in ENDS.items():
    cancels = asked.startswith("hang")
    with client.responses.connect() as connection:
        connection.response.create(model=MODEL, input=asked, tools=TOOLS)
        events = read(connection, cancels=cancels)
        last = events[-1]
        assert (last.type, last.response.status) == (last_type, status), last
        resumed = {"type": "response.resume", "response_id": last.response.id, "starting_after": 2}
        connection.send(resumed)
        again = read(connection, cancels=False)
        assert again[-1].response == last.response
        assert [event.sequence_number for event in again] == sorted({event.sequence_number for event in again})

    found = client.responses.retrieve(last.response.id)
    assert found.output == last.response.output, (found.output, last.response.output)
    assert (found.status, found.usage, found.error) == (status, last.response.usage, last.response.error)
    between = events[len(events) // 2].sequence_number  # of an event that came, as deltas may have come joined
    for after in (0, 1, between, last.sequence_number, last.sequence_number + 100):
        rest = list(client.responses.retrieve(last.response.id, stream=True, starting_after=after))
        assert (rest[-1].type, rest[-1].response) == (last.type, last.response), (after, rest[-1])
        known = [event for event in events if event.sequence_number > after]
        assert text_of(rest) == text_of(known) or after >= last.sequence_number
    (item,) = client.responses.input_items.list(last.response.id)
    assert (item.role, item.content[0].text) == ("user", asked)
    client.responses.delete(last.response.id)
    try:
        client.responses.retrieve(last.response.id)
        raise AssertionError("it was deleted")
    except openai.NotFoundError:
        pass

running = client.responses.create(model=MODEL, input="hang Half", background=True)
with client.responses.retrieve(running.id, stream=True) as stream:
    for event in stream:
        if event.type == "response.output_text.delta" and event.delta.endswith("…"):
            break
try:
    client.responses.retrieve(running.id, stream=True, starting_after=event.sequence_number + 1)
    refused = None
except openai.BadRequestError as exc:
    refused = exc.param
assert refused == "starting_after"
assert client.responses.cancel(running.id).status == "cancelled"

with client.responses.connect() as connection, client.responses.connect() as other:
    connection.response.create(model=MODEL, input="hang Half")
    for event in connection:
        if event.type == "response.output_text.delta" and event.delta.endswith("…"):
            break
    connection.response.create(model=MODEL, input="say never")
    for event in connection:
        if event.type == "response.queued":
            break
    assert event.response.status == "queued"
    assert client.responses.retrieve(event.response.id).status == "queued"
    other.send({"type": "response.cancel", "response_id": event.response.id})
    (end,) = read(connection, cancels=False)
    assert (end.response.id, end.response.status) == (event.response.id, "cancelled")
    connection.send({"type": "response.cancel"})
    assert read(connection, cancels=False)[-1].response.status == "cancelled"

compacted = client.responses.compact(model=MODEL, input="say Hello there")
assert [item.type for item in compacted.output] == ["message", "compaction"]
assert compacted.usage.total_tokens > 0
going_on = [item.model_dump(exclude_none=True) for item in compacted.output]
again = client.responses.create(model=MODEL, input=[*going_on, {"role": "user", "content": "say Hello again"}])
assert again.output_text == "Hello again"
print("passed")
