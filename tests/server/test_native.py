"""Requests in the runtime's own form: what a client may say, and what becomes of answers whose connection broke."""

from __future__ import annotations

import json
from math import inf
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.run import Run
from llm_actors.testing import MovingClock
from llm_protocol.codec.json import encode_json
from llm_protocol.content import Message
from llm_protocol.dialect import ClientRequest
from llm_protocol.embedding import Embedding
from llm_protocol.errors import ModelNotFoundError
from llm_protocol.events import Embedded, Event, Finished, Started, TextDelta
from llm_protocol.native import RESUME_SECONDS, Events, NativeEncoder, decode_frame, encode_create, encode_resume
from llm_protocol.policy import Policy
from llm_protocol.requests import ChatRequest, Parameters
from llm_protocol.response import FinishReason, LLMResponse
from llm_runtime.config import ServerLimits
from llm_runtime.server.limits import LINGERING_RESPONSES
from llm_runtime.server.native import OPTIONS
from llm_runtime.server.response_store import ResponseStore, StoredResponse
from support.server import add_text, begin_text, end_text, hanging, open_server, saying
from support.ws import CLOSE, WsClient, connected, frame

REQUEST = ChatRequest(messages=(Message.of("user", "hi"),), model="m")


def new_id() -> str:
    return f"resp_{uuid4().hex}"


def create(response_id: str, request: ChatRequest = REQUEST, lane: str = "1") -> str:
    return encode_create(encode_json(request), response_id, lane, stream=True).decode()


async def events_of(client: WsClient) -> list[Event]:
    """All events up to the last of a response."""
    found: list[Event] = []
    while not (found and isinstance(found[-1], Finished)):
        got = decode_frame(json.dumps(await client.event()))
        found += got.events if isinstance(got, Events) else ()
    return found


async def test_a_request_keeps_all_it_says_and_events_come_as_they_are() -> None:
    request = ChatRequest(
        messages=(Message.of("user", "hi"),),
        model="m",
        parameters=Parameters(top_k=3, seed=1, extra={"gemini": {"x": 1}}),
        policy=Policy(strategy="panel", members=2),
        context={"a": 1},
        deadline_s=30,
    )
    async with open_server(saying("Hel", "lo")) as server, connected(server) as client:
        response_id = new_id()
        await client.send(create(response_id, request))
        assert (await client.event()) == {"type": "llm-runtime:accepted", "response_id": response_id}
        events = await events_of(client)
        [seen] = server.engine.requests
        [run] = server.engine.runs
    assert seen == msgspec.structs.replace(request, timestamp=seen.timestamp)
    assert run.response_id == response_id
    assert run.log.end == events[-1]
    assert "".join(each.text for each in events if isinstance(each, TextDelta)) == "Hello"


async def test_who_asks_and_what_goes_in_headers_is_not_the_clients_to_say() -> None:
    request = ChatRequest(
        messages=(Message.of("user", "hi"),),
        caller="root",
        forwarded={"x-secret": "1"},
        parameters=Parameters(headers={"x-other": "2"}, wire="responses"),
    )
    keys = {"alice": "sk-alice-0123456789"}
    async with (
        open_server(keys=keys) as server,
        connected(server, authorization="Bearer sk-alice-0123456789") as client,
    ):
        await client.send(create(new_id(), request))
        await events_of(client)
        [seen] = server.engine.requests
    assert (seen.caller, seen.forwarded, seen.parameters) == ("alice", {}, Parameters())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"response_id": "mine"}, "response_id: expected text matching"),
        ({"request": {"request_type": "chat"}}, "request.messages is missing"),
        ({"request": {"request_type": "dance"}}, "request.request_type"),
        ({"request": {"request_type": "chat", "messages": [], "request_id": "a b"}}, "request.request_id"),
        ({"request": {"request_type": "chat", "messages": [], "policy": {"strategi": "panel"}}}, "unknown field"),
    ],
    ids=["id", "missing", "type", "request_id", "policy"],
)
async def test_a_wrong_frame_is_refused_by_its_field(change: dict[str, Any], says: str) -> None:
    async with open_server() as server, connected(server) as client:
        await client.send({**json.loads(create(new_id())), **change})
        event = await client.event()
        assert (event["type"], event["status"]) == ("error", 400)
        assert says in event["error"]["message"]
        await client.send(create(new_id()))
        await events_of(client)


async def test_a_refusal_has_the_whole_failure() -> None:
    async with open_server(ModelNotFoundError("there is no model m")) as server, connected(server) as client:
        response_id = new_id()
        await client.send(create(response_id))
        event = await client.event()
    assert event["event_id"] == response_id
    assert event["failure"]["kind"] == "model_not_found"


async def test_an_id_is_taken_once() -> None:
    async with open_server(hanging) as server, connected(server) as client, connected(server) as other:
        response_id = new_id()
        await client.send(create(response_id))
        await client.event()
        await other.send(create(response_id))
        assert (await other.event())["error"]["code"] == "response_exists"


async def test_an_answer_is_resumed_on_another_connection_without_a_gap(jumping_clock: MovingClock) -> None:
    response_id = new_id()
    async with open_server(slowly) as server:
        async with connected(server) as client:
            await client.send(create(response_id))
            await client.event()
            first = decode_frame(json.dumps(await client.event()))
            assert isinstance(first, Events)
        async with connected(server) as client:
            await client.send(encode_resume(response_id, first.sequence_number, "1").decode())
            events = [*first.events, *(await events_of(client))]
        [run] = server.engine.runs
    assert [type(each) for each in events] == [type(each) for each in run.log.events]
    assert "".join(each.text for each in events if isinstance(each, TextDelta)) == "Hello"


async def slowly(run: Run) -> None:
    begin_text(run)
    await trio.sleep(0.1)
    add_text(run, "Hel")
    await trio.sleep(0.1)
    add_text(run, "lo")
    await trio.sleep(0.1)
    end_text(run)


async def test_nobody_comes_back_and_the_call_ends_then(jumping_clock: MovingClock) -> None:
    async with open_server(hanging) as server:
        async with connected(server) as client:
            await client.send(create(new_id()))
            await client.event()
        began = trio.current_time()
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=2 * RESUME_SECONDS)
        assert RESUME_SECONDS <= trio.current_time() - began <= RESUME_SECONDS + 2


async def test_who_says_goodbye_is_not_waited_for(jumping_clock: MovingClock) -> None:
    async with open_server(hanging) as server:
        async with connected(server) as client:
            await client.send(create(new_id()))
            await client.event()
            began = trio.current_time()
            await client.raw(frame(CLOSE, b"\x03\xe8"))
            await server.engine.until(lambda: server.engine.open_runs == 0)
        assert trio.current_time() - began < 1


async def test_only_its_own_caller_comes_back(jumping_clock: MovingClock) -> None:
    response_id = new_id()
    keys = {"alice": "sk-alice-0123456789", "bob": "sk-bob-0123456789ab"}
    async with open_server(hanging, keys=keys) as server:
        async with connected(server, authorization="Bearer sk-alice-0123456789") as client:
            await client.send(create(response_id))
            await client.event()
        async with connected(server, authorization="Bearer sk-bob-0123456789ab") as client:
            await client.send(encode_resume(response_id, -1, "1").decode())
            assert (await client.event())["error"]["code"] == "response_not_found"


async def test_of_answers_that_wait_for_their_clients_the_oldest_make_room() -> None:
    store = ResponseStore(ServerLimits())
    runs = [Run(REQUEST, stream=True) for _ in range(LINGERING_RESPONSES + 1)]
    for run in runs:
        store.linger(StoredResponse(run, ClientRequest(REQUEST), OPTIONS, (), 0), until=inf)
    assert store.find_lingering(runs[0].response_id, "") is None
    assert runs[0].cancelled_because is not None
    assert store.find_lingering(runs[1].response_id, "") is not None


async def test_it_is_no_response_of_the_responses_api() -> None:
    response_id = new_id()
    async with open_server(hanging) as server, connected(server) as client:
        await client.send(create(response_id))
        await client.event()
        for method, path in ("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"):
            reply = await server.request(method, f"/v1/responses/{response_id}{path}")
            assert reply.status == 404


async def test_a_request_that_waits_is_cancelled_by_its_lane() -> None:
    async with open_server(hanging, websocket_responses=1) as server, connected(server) as client:
        waiting = new_id()
        await client.send(create(new_id()))
        await client.event()
        await client.event()
        await client.send(create(waiting, lane="2"))
        await client.send({"type": "response.cancel", "stream_id": "2", "event_id": waiting})
        got = [await client.event(), await client.event()]
    kinds = {each["type"] for each in got}
    assert kinds == {"error", "llm-runtime:cancelled"}
    [refused] = [each for each in got if each["type"] == "error"]
    assert (refused["event_id"], refused["failure"]["kind"]) == (waiting, "cancelled")


async def test_what_else_is_asked() -> None:
    async with open_server() as server:
        greeting = (await server.request("GET", "/v1/runtime")).json
        assert greeting["responses"] == 16
        assert greeting["max_bytes"] == 16 * 1024 * 1024
        models = (await server.request("GET", "/v1/runtime/models")).json
        assert [each["id"] for each in models] == ["fake/fake-1", "local/smollm2"]
        body = encode_json(REQUEST)
        assert (await server.request("POST", "/v1/runtime/count_tokens", body)).json == [7, False]
        assert (await server.request("POST", "/v1/runtime/count_tokens", b"[]")).status == 400
        assert (await server.request("DELETE", "/v1/runtime/knowledge")).json == 0
        assert (await server.request("GET", "/v1/runtime/ranking?model=m")).status == 200


@given(st.lists(st.sampled_from(["a", "bc", "\n", "é"]), min_size=1, max_size=200), st.data())
def test_wherever_a_reader_was_cut_off_it_gets_the_rest(pieces: list[str], data: st.DataObject) -> None:
    run = _run()
    run.log.append(Started(model="m"))
    for piece in pieces:
        run.log.append(TextDelta(0, piece))
    run.log.append(Embedded((Embedding.of([1.0, 0.1]),)))
    run.finish(Finished(reason=FinishReason.STOP), LLMResponse(request_id="r", provider="p", model="m"))
    last = len(run.log) - 1
    after = data.draw(st.integers(-1, last))
    [sent] = NativeEncoder("resp_1").encode(run.log.events)
    whole = decode_frame(sent.data)
    assert isinstance(whole, Events)
    assert whole.sequence_number == last
    assert whole.events[-2:] == tuple(run.log.events[-2:])
    got = NativeEncoder("resp_1", after).encode(run.log.events)
    seen = "".join(pieces[: max(0, after)])
    rest = decode_frame(got[0].data).events if got else ()  # type: ignore[union-attr]
    assert seen + "".join(each.text for each in rest if isinstance(each, TextDelta)) == "".join(pieces)
    assert bool(got) == (after < last)


def _run() -> Run:
    async def make() -> Run:
        return Run(REQUEST, stream=True)

    return trio.run(make)
