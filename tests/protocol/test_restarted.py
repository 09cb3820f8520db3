"""A restarted answer, told on the only wire that can tell it."""

from __future__ import annotations

import msgspec

from llm_protocol.content import Text
from llm_protocol.events import Event, Finished, ItemStarted, Restarted, Started, TextDelta
from llm_protocol.fold import item_events
from llm_protocol.response import FinishReason, LLMResponse
from llm_protocol.wires.responses import OpenAIResponsesServer


def test_after_a_restart_the_items_are_others_and_the_numbers_go_on() -> None:
    server = OpenAIResponsesServer()
    create = server.decode_create(
        b'{"model":"m","input":"hi","stream":true,"llm_runtime":{"on_broken_stream":"restart"}}'
    )
    whole = LLMResponse(request_id="r", provider="p", model="m", content="whole", output=(Text("whole"),))
    events: list[Event] = [
        Started(model="a"),
        ItemStarted(index=0, kind="text"),
        TextDelta(0, "bro"),
        Restarted(),
        Started(model="b"),
        *item_events(0, Text("whole")),
        Finished(reason=FinishReason.STOP, response=whole),
    ]

    encoder = server.response_encoder(create.inbound, "resp_1", create.options)
    frames = [msgspec.json.decode(frame.data) for frame in [*encoder.start(), *encoder.encode(events)] if frame.event]

    kinds = [frame["type"] for frame in frames]
    added = [frame["item"]["id"] for frame in frames if frame["type"] == "response.output_item.added"]
    assert [frame["sequence_number"] for frame in frames] == list(range(len(frames)))
    assert kinds.count("llm-runtime:restarted") == 1
    assert len(set(added)) == 2
    assert frames[-1]["type"] == "response.completed"
    assert [item["content"][0]["text"] for item in frames[-1]["response"]["output"]] == ["whole"]
