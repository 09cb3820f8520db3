"""What is said on a WebSocket: lanes, events, errors, cancel, follow-ups."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.run import Run
from llm_protocol.errors import ModelNotFoundError, ParkedError
from llm_runtime.server.client_events import KNOWN
from support.server import FakeEngine, add_text, begin_text, end_text, hanging, open_server, saying, silent
from support.ws import TEXT, connected, frame, ids, text_of

ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


async def slowly(run: Run) -> None:
    """Two deltas that are seen one by one."""
    begin_text(run)
    await trio.testing.wait_all_tasks_blocked()
    add_text(run, "Hel")
    await trio.testing.wait_all_tasks_blocked()
    add_text(run, "lo")
    await trio.testing.wait_all_tasks_blocked()
    end_text(run)


def check_transcript(events: list[dict[str, object]], *, stream_id: str | None = None) -> None:
    """The golden transcript of a text answer, the same for SSE and WebSocket."""
    assert [each["type"] for each in events] == ORDER
    assert [each["sequence_number"] for each in events] == list(range(len(ORDER)))
    assert {each.get("stream_id") for each in events} == {stream_id}
    item = {events[at]["item_id"] for at in range(3, 8)} | {events[at]["item"]["id"] for at in (2, 8)}  # type: ignore[index]
    assert len(item) == 1
    last = events[-1]["response"]
    assert isinstance(last, dict)
    assert last["status"] == "completed"
    assert last["output"] == [events[8]["item"]]
    assert last["output"][0]["content"][0]["text"] == "Hello"
    assert last["usage"]["input_tokens_details"]["cached_tokens"] == 0
    assert last["usage"]["output_tokens_details"]["reasoning_tokens"] == 0
    assert (last["usage"]["input_tokens"], last["usage"]["output_tokens"], last["usage"]["total_tokens"]) == (3, 2, 5)


async def test_the_golden_transcript_is_the_same_over_both_transports() -> None:
    async with open_server(slowly) as server:
        async with connected(server) as ws:
            await ws.create()
            check_transcript(await ws.response())
            await ws.create(stream_id="main")
            check_transcript(await ws.response(), stream_id="main")
        reply = await server.request("POST", "/v1/responses", {"model": "m", "input": "hi", "stream": True})
        assert reply.events[-1] == "[DONE]"
        check_transcript(reply.events[:-1])
        names = [line[7:] for line in reply.body.decode().splitlines() if line.startswith("event: ")]
        assert names == ORDER


async def test_lanes_go_side_by_side_and_one_lane_in_order() -> None:
    async with open_server(hanging, saying("two"), saying("three")) as server, connected(server) as ws:
        await ws.create("one", stream_id="a")
        await server.engine.until(lambda: len(server.engine.runs) == 1)
        await ws.create("two", stream_id="b")
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] != "response.completed":
            events.append(await ws.event())
        assert text_of([each for each in events if each["stream_id"] == "b"]) == "two"
        await ws.create("three", stream_id="a")
        await ws.send({"type": "response.cancel", "stream_id": "a"})
        assert (await ws.response())[-1]["response"]["status"] == "cancelled"
        assert text_of(await ws.response()) == "three"
        assert [each.messages[0].text for each in server.engine.requests] == ["one", "two", "three"]  # type: ignore[union-attr]


async def test_sixteen_are_active_and_the_others_wait() -> None:
    async with open_server(*[hanging] * 16, saying("late")) as server, connected(server) as ws:
        for lane in range(32):
            await ws.create(stream_id=f"l{lane}")
        await ws.create()
        await server.engine.until(lambda: len(server.engine.runs) == 16)
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.engine.runs) == 16
        await ws.create(stream_id="l32")
        while (event := await ws.event())["type"] != "error":
            pass
        assert event["error"]["code"] == "websocket_stream_limit_reached"
        await ws.send({"type": "response.cancel", "stream_id": "l0"})
        seen = set()
        while "l16" not in seen:
            event = await ws.event()
            if event["type"] == "response.completed":
                seen.add(event["stream_id"])


async def test_a_flood_of_requests_is_refused_beyond_the_queue() -> None:
    """What does not fit is refused, each with an error; another client is served meanwhile."""
    async with open_server(hanging, saying("hi")) as server, connected(server) as ws, connected(server) as other:
        await ws.create()
        await server.engine.until(lambda: len(server.engine.runs) == 1)
        sent = frame(TEXT, b'{"type":"response.create","input":"x","event_id":"e"}') * 2_000
        refused = 0

        async def read() -> None:
            nonlocal refused
            while refused < 2_000 - 64:
                event = await ws.event()
                if event["type"] == "error":
                    assert (event["status"], event["error"]["code"], event["event_id"]) == (429, "queue_full", "e")
                    assert event["error"]["headers"] == {"retry-after": "1", "x-llm-runtime-limit-owner": "server"}
                    assert event["llm_runtime"] == {"limit_owner": "server"}
                    refused += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(ws.raw, sent)
            await other.create()
            with trio.fail_after(5):
                assert text_of(await other.response()) == "hi"


async def test_a_client_that_floods_and_does_not_read_is_closed() -> None:
    async with open_server() as server, connected(server) as ws:
        bad = frame(TEXT, b"{") * 5_000

        async def flood() -> None:
            try:
                while True:
                    await ws.raw(bad)
            except trio.BrokenResourceError:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await server.until(lambda: server.connections == 0, seconds=20)
            nursery.cancel_scope.cancel()


BAD = [
    ("{", "invalid_json"),
    ("", "invalid_json"),
    ("[" * 100_000, "invalid_request"),
    ("nonsense", "invalid_json"),
    ("[]", "invalid_request"),
    ("null", "invalid_request"),
    ('{"type":1}', "invalid_request"),
    ("{}", "unknown_event_type"),
    ('{"type":"response.inject"}', "unknown_event_type"),
    ('{"type":"' + "x" * 1_000_000 + '"}', "unknown_event_type"),
    ('{"type":"response.create","input":"a","stream_id":"a b"}', "invalid_stream_id"),
    ('{"type":"response.create","input":"a","stream_id":""}', "invalid_stream_id"),
    ('{"type":"response.create","input":"a","stream_id":"' + "a" * 1_000_000 + '"}', "invalid_stream_id"),
    ('{"type":"response.create","input":"a","stream_id":"a\\u0000"}', "invalid_stream_id"),
    ('{"type":"response.create","input":"a","stream_id":7}', "invalid_request"),
    ('{"type":"response.create"}', "invalid_request"),
    ('{"type":"response.create","input":1}', "invalid_request"),
    ('{"type":"response.create","input":"a","temperature":NaN}', "invalid_request"),
    ('{"type":"response.create","input":"a","base_url":"http://x"}', "invalid_request"),
    ('{"type":"response.create","input":"a","previous_response_id":"resp_x"}', "previous_response_not_found"),
    ('{"type":"response.cancel","response_id":"resp_x"}', "response_not_found"),
    ('{"type":"response.cancel"}', "response_not_found"),
    ('{"type":"response.cancel","respnse_id":"x"}', "invalid_request"),
    ('{"type":"response.resume","response_id":"resp_x"}', "response_not_found"),
    ('{"type":"response.resume"}', "invalid_request"),
    ('{"type":"response.resume","response_id":"x","from":3}', "invalid_request"),
]


@pytest.mark.parametrize(("kind", "like"), [("cancel", '"response_id": "resp_…"}'), ("resume", '"starting_after": 7}')])
async def test_a_bad_frame_is_shown_a_good_one_of_its_kind(kind: str, like: str) -> None:
    async with open_server() as server, connected(server) as ws:
        await ws.send(f'{{"type":"response.{kind}","response_id":7}}')
        told = (await ws.event())["error"]["message"]
    example = told.partition("Send, for example, ")[2]
    assert json.loads(example)["type"] == f"response.{kind}"
    assert example.endswith(like)


@pytest.mark.parametrize(("sent", "code"), BAD, ids=[f"{code}-{n}" for n, (_, code) in enumerate(BAD)])
async def test_a_bad_frame_gets_an_error_and_harms_nothing_else(sent: str, code: str) -> None:
    """The connection stays, the other lanes do not notice."""
    async with open_server(hanging, saying("on")) as server, connected(server) as ws:
        await ws.create(stream_id="other")
        await server.engine.until(lambda: server.engine.open_runs == 1)
        await ws.send(sent)
        while (event := await ws.event())["type"] != "error":
            assert event["stream_id"] == "other"
        assert event["error"]["code"] == code or (code == "invalid_request" and "invalid" in event["error"]["code"])
        assert event["status"] in (400, 404)
        assert event["error"]["message"]
        assert len(json.dumps(event)) < 2_500
        await ws.create(stream_id="next")
        while (event := await ws.event())["type"] != "response.completed":
            pass
        assert event["stream_id"] == "next"
        assert server.engine.open_runs == 1


async def test_the_error_for_an_unknown_type_lists_the_known() -> None:
    async with open_server() as server, connected(server) as ws:
        await ws.send({"type": "nonsense", "event_id": "e1", "stream_id": "s1"})
        event = await ws.event()
        assert all(name in event["error"]["message"] for name in KNOWN)
        assert (event["event_id"], event["stream_id"]) == ("e1", "s1")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "stream_id", "event_id", "input", "response_id", "model", "tools"])
                | st.text(max_size=3),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    ),
    st.sampled_from(KNOWN),
)
def test_any_json_is_answered_by_something(value: object, kind: str) -> None:
    """Whatever a frame says, the session says something or begins something; it never crashes."""

    async def main() -> None:
        async with open_server() as server, connected(server) as ws:
            body = value | {"type": kind} if isinstance(value, dict) else value
            await ws.send(json.dumps(body), {"type": "response.steer"})
            while (await ws.event())["type"] != "response.steer.failed":
                pass

    trio.run(main)


async def test_what_clients_send_beside_the_point_is_accepted() -> None:
    async with open_server() as server, connected(server) as ws:
        await ws.send({"type": "response.processed", "response_id": "resp_1"})
        await ws.create(
            stream=True, client_metadata={"a": 1}, prompt_cache_key="k", include=["reasoning.encrypted_content"]
        )
        assert text_of(await ws.response()) == "Hello"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ModelNotFoundError("no such model"), 404, "model_not_found"),
        (ParkedError("resting"), 503, "provider_unavailable"),
    ],
)
async def test_a_refused_request_is_one_error_on_its_lane(error: Exception, status: int, code: str) -> None:
    async with open_server(error, saying("on")) as server, connected(server) as ws:
        await ws.create(stream_id="a", event_id="e")
        event = await ws.event()
        assert (event["type"], event["status"], event["error"]["code"]) == ("error", status, code)
        assert (event["stream_id"], event["event_id"]) == ("a", "e")
        await ws.create(stream_id="a")
        assert text_of(await ws.response()) == "on"


async def test_a_bug_in_the_engine_ends_one_request() -> None:
    async with open_server(RuntimeError("secret"), saying("on")) as server, connected(server) as ws:
        await ws.create()
        event = await ws.event()
        assert (event["status"], event["error"]["code"]) == (400, "server_error")
        assert "secret" not in str(event)
        await ws.create()
        assert text_of(await ws.response()) == "on"


@pytest.mark.parametrize("by", ["response_id", "stream_id", "default"])
async def test_cancel_stops_one_response_and_keeps_what_there_was(by: str) -> None:
    """Own."""
    lane = {"stream_id": "a"} if by == "stream_id" else {}
    async with open_server(hanging, saying("on")) as server, connected(server) as ws:
        await ws.create(**lane)
        events = [await ws.event()]
        while events[-1]["type"] != "response.output_text.delta":
            events.append(await ws.event())
        which = {"response_id": ids(events)} if by == "response_id" else lane
        await ws.send({"type": "response.cancel"} | which)
        with trio.fail_after(1):
            last = (await ws.response())[-1]
        assert last["type"] == "response.incomplete"
        assert last["response"]["status"] == "cancelled"
        assert last["response"]["output"][0]["content"][0]["text"] == "so far"
        await ws.send({"type": "response.cancel"} | which)  # twice
        assert (await ws.event())["error"]["code"] == "response_not_found"
        await ws.create(**lane)
        assert text_of(await ws.response()) == "on"


async def test_cancel_reaches_what_is_still_being_submitted() -> None:
    async with open_server(silent) as server, connected(server) as ws:
        await ws.raw(
            frame(TEXT, b'{"type":"response.create","input":"x"}') + frame(TEXT, b'{"type":"response.cancel"}')
        )
        assert (await ws.response())[-1]["response"]["status"] == "cancelled"


async def test_anothers_response_is_as_unknown_as_none() -> None:
    """Foreign ids cannot be cancelled, resumed, followed up, read or deleted."""
    keys = {"alice": "sk-a", "bob": "sk-b"}
    bob = {"authorization": "Bearer sk-b"}
    async with open_server(saying("hers"), hanging, keys=keys) as server:
        async with connected(server, authorization="Bearer sk-a") as hers, connected(server, **bob) as his:
            await hers.create()
            done = ids(await hers.response())
            await hers.create()
            live = (await hers.event())["response"]["id"]
            heard: list[list[str]] = []
            for known in (done, live, "resp_unknown"):
                await his.send({"type": "response.cancel", "response_id": known})
                await his.send({"type": "response.resume", "response_id": known})
                await his.create(previous_response_id=known)
                answers = [event for _ in range(3) if (event := await his.event())["type"] != "response.queued"]
                answers += [await his.event() for _ in range(3 - len(answers))]
                said = [json.dumps(each).replace(known, "ID") for each in answers]
                heard.append(said)
                assert [each["type"] for each in answers] == ["error"] * 3
                for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel")):
                    assert (await server.request(method, f"/v1/responses/{known}{path}", **bob)).status == 404
            assert heard[0] == heard[1] == heard[2]
            assert server.engine.open_runs == 1


async def test_a_follow_up_carries_the_conversation_but_not_the_instructions() -> None:
    async with open_server(saying("One."), saying("Two."), saying("Three.")) as server, connected(server) as ws:
        await ws.create("first", instructions="be terse", store=False)
        first = ids(await ws.response())
        await ws.create("second", previous_response_id=first, instructions="be kind", store=False)
        second = ids(await ws.response())
        await ws.create("third", previous_response_id=second, stream_id="fork")
        await ws.response()
        said = [(each.role, each.text) for each in server.engine.requests[2].messages]  # type: ignore[union-attr]
        assert said == [
            ("user", "first"),
            ("assistant", "One."),
            ("user", "second"),
            ("assistant", "Two."),
            ("user", "third"),
        ]
        assert server.engine.requests[1].messages[0].text == "be kind"  # type: ignore[union-attr]


async def test_what_is_not_stored_is_known_to_its_connection_alone() -> None:
    async with open_server() as server:
        async with connected(server) as ws:
            await ws.create(store=False)
            unstored = ids(await ws.response())
            await ws.create()
            stored = ids(await ws.response())
        assert (await server.request("GET", f"/v1/responses/{unstored}")).status == 404
        assert (await server.request("GET", f"/v1/responses/{stored}")).status == 200
        async with connected(server) as ws:
            await ws.create(previous_response_id=unstored)
            assert (await ws.event())["error"]["code"] == "previous_response_not_found"
            await ws.create(previous_response_id=stored)
            assert (await ws.response())[-1]["type"] == "response.completed"


async def test_a_warm_up_costs_nothing_and_can_be_followed_up() -> None:
    async with open_server() as server, connected(server) as ws:
        await ws.create("context", generate=False, store=False, instructions="x", tools=[])
        events = await ws.response()
        assert [each["type"] for each in events] == ["response.created", "response.in_progress", "response.completed"]
        assert events[-1]["response"]["output"] == []
        assert events[-1]["response"]["usage"]["total_tokens"] == 0
        assert server.engine.requests == []
        await ws.create("question", previous_response_id=ids(events), store=False)
        assert text_of(await ws.response()) == "Hello"
        assert [each.text for each in server.engine.requests[0].messages] == ["context", "question"]  # type: ignore[union-attr]


async def test_a_failed_response_is_no_parent() -> None:
    async with open_server(hanging) as server, connected(server) as ws:
        await ws.create()
        response_id = (await ws.event())["response"]["id"]
        await ws.send({"type": "response.cancel"})
        await ws.response()
        await ws.create(previous_response_id=response_id)
        assert (await ws.event())["error"]["code"] == "previous_response_not_found"


def test_the_fake_engine_is_an_engine() -> None:
    """The seam: what stands in for the runtime has its interface."""
    from llm_runtime.runtime import Runtime
    from llm_runtime.server import RequestEngine

    for name in ("submit", "model_list", "is_ready", "parked_services", "tree", "explain", "metrics"):
        assert all(callable(getattr(each, name)) for each in (RequestEngine, Runtime, FakeEngine))
