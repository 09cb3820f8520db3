"""The Responses API over WebSocket by the official SDK: one connection, several lanes."""

import sys

import openai
import websockets.exceptions

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2], max_retries=0)
MODEL = "fake/fake-1"
TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}]


def text_of(events):
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def until_end(connection):
    events = []
    for event in connection:
        events.append(event)
        if event.type in ("response.completed", "response.failed", "response.incomplete", "error"):
            return events
    raise AssertionError("the connection ended in mid-response")


with client.responses.connect() as connection:
    connection.response.create(model=MODEL, input="say Hello there")
    events = until_end(connection)
    assert text_of(events) == "Hello there"
    assert events[-1].response.output_text == "Hello there"

    connection.response.create(model=MODEL, input="call weather", tools=TOOLS, store=False)
    last = until_end(connection)[-1].response
    (call,) = [item for item in last.output if item.type == "function_call"]
    answer = {"type": "function_call_output", "call_id": call.call_id, "output": "say 21 C"}
    connection.response.create(model=MODEL, previous_response_id=last.id, input=[answer], store=False)
    assert text_of(until_end(connection)) == "21 C"

    for lane in range(8):
        connection.response.create(model=MODEL, input=f"slowly lane {lane} speaks", stream_id=f"lane-{lane}")
    ended, heard = 0, {}
    for event in connection:
        heard.setdefault(event.stream_id, []).append(event)
        ended += event.type == "response.completed"
        if ended == 8:
            break
    for lane in range(8):
        assert text_of(heard[f"lane-{lane}"]) == f"lane {lane} speaks"

    connection.response.create(model="nobody/nothing", input="hi")
    (error,) = until_end(connection)
    assert (error.type, error.error.code) == ("error", "model_not_found"), error
    connection.response.create(model=MODEL, input="say still here")
    assert text_of(until_end(connection)) == "still here"

    connection.response.create(model=MODEL, input="break Half")
    failed = until_end(connection)[-1]
    assert failed.type == "response.failed"
    assert failed.response.output_text == "Half"

    connection.response.create(model=MODEL, input="hang")
    for event in connection:
        if event.type == "response.output_text.delta":
            break
    connection.send({"type": "response.cancel"})
    assert until_end(connection)[-1].response.status == "cancelled"

try:
    with openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="wrong").responses.connect() as connection:
        refused = None
except websockets.exceptions.InvalidStatus as exc:
    refused = exc.response
assert refused.status_code == 401
assert b"invalid_api_key" in refused.body
print("passed")
