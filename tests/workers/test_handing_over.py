"""A response of one worker is everybody's: the others retrieve, resume, continue, cancel and delete it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.events import Finished
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason
from llm_runtime.server.limits import FAILED_LOGINS
from support.killable import events_until
from support.server import OpenServer, add_text, begin_text, end_text, hanging
from support.several import two_workers
from support.ws import connected, ids, text_of

ASK = {"model": "m", "input": "hi"}
KEYS = {"alice": "sk-alice-0123456789", "bob": "sk-bob-0123456789"}
ALICE = {"authorization": "Bearer sk-alice-0123456789"}
BOB = {"authorization": "Bearer sk-bob-0123456789"}
WRONG = {"authorization": "Bearer sk-alice-012345678"}
PIECES = "first second third".replace(" ", "\0 ").split("\0")


async def slowly(run: Run) -> None:
    """Half of the letters at once, the rest one by one, a second apart."""
    begin_text(run)
    for piece in PIECES[0]:
        add_text(run, piece)
    for word in PIECES[1:]:
        await trio.sleep(1)
        add_text(run, word)
    end_text(run)


async def background(door: OpenServer) -> str:
    begun = (await door.request("POST", "/v1/responses", ASK | {"background": True})).json
    return str(begun["id"])


async def test_what_one_has_made_the_other_knows(jumping_clock: MockClock) -> None:
    async with two_workers() as two:
        whole = (await two.one.request("POST", "/v1/responses", ASK)).json
        assert whole["id"].startswith("resp_01"), "it carries its worker"
        path = f"/v1/responses/{whole['id']}"
        assert (await two.other.request("GET", path)).json == whole
        items = (await two.other.request("GET", f"{path}/input_items")).json
        assert items["data"][0]["content"][0]["text"] == "hi"
        last = (await two.other.request("GET", f"{path}?stream=true&starting_after=999")).events
        assert [each["type"] for each in last[:-1]] == ["response.completed"]
        more = await two.other.request("POST", "/v1/responses", ASK | {"previous_response_id": whole["id"]})
        assert more.json["id"].startswith("resp_02")
        assert [each.text for each in two.other.engine.requests[-1].messages] == ["hi", "Hello", "hi"]  # type: ignore[union-attr]
        item = {"type": "item_reference", "id": whole["output"][0]["id"]}
        said = [item, {"role": "user", "content": "so?"}]
        assert (await two.other.request("POST", "/v1/responses", {"model": "m", "input": said})).status == 200
        assert [each.text for each in two.other.engine.requests[-1].messages] == ["Hello", "so?"]  # type: ignore[union-attr]


async def test_deleted_by_one_is_deleted_everywhere(jumping_clock: MockClock) -> None:
    async with two_workers() as two:
        for maker, deleter in ((two.one, two.other), (two.other, two.one)):
            path = f"/v1/responses/{(await maker.request('POST', '/v1/responses', ASK)).json['id']}"
            assert (await deleter.request("GET", path)).status == 200
            assert (await deleter.request("DELETE", path)).json["deleted"]
            assert (await deleter.request("GET", path)).status == 404
            assert (await maker.request("GET", path)).status == 404
            assert (await deleter.request("DELETE", path)).status == 404


@pytest.mark.parametrize("over", ["http", "websocket"])
async def test_a_stream_of_one_is_resumed_at_the_other_while_it_is_made(over: str, jumping_clock: MockClock) -> None:
    async with two_workers(slowly) as two:
        async with await two.one.connect() as client:
            await client.begin("POST", "/v1/responses", ASK | {"stream": True})
            await client.head()
            seen = await events_until(client, "fi")
            response_id, after = ids(seen), seen[-1]["sequence_number"]
            if over == "http":
                target = f"/v1/responses/{response_id}?stream=true&starting_after={after}"
                rest = (await two.other.request("GET", target)).events[:-1]
            else:
                async with connected(two.other) as ws:
                    await ws.send({"type": "response.resume", "response_id": response_id, "starting_after": after})
                    rest = await ws.response()
            here = await events_until(client, "third")
    assert text_of([*seen, *rest]) == "first second third"
    assert [each["sequence_number"] for each in rest] == list(range(after + 1, rest[-1]["sequence_number"] + 1))
    assert rest[-1]["type"] == "response.completed"
    assert text_of(here) == " second third", "whoever followed it before is not disturbed"


async def test_a_background_response_is_watched_and_cancelled_from_the_other(jumping_clock: MockClock) -> None:
    async with two_workers(hanging) as two:
        path = f"/v1/responses/{await background(two.one)}"
        now = (await two.other.request("GET", path)).json
        assert now["status"] == "in_progress"
        beyond = await two.other.request("GET", f"{path}?stream=true&starting_after=999")
        assert (beyond.status, beyond.json["error"]["param"]) == (400, "starting_after")
        cancelled = (await two.other.request("POST", f"{path}/cancel")).json
        assert cancelled["status"] == "cancelled"
        assert cancelled["output"][0]["content"][0]["text"] == "so far"
        assert (await two.one.request("GET", path)).json == cancelled
        assert (await two.other.request("GET", path)).json == cancelled
        assert two.one.engine.open_runs == 0


async def test_who_looks_in_passing_disturbs_nothing(jumping_clock: MockClock) -> None:
    """The other worker follows only while somebody needs that, and its leaving ends no background response."""
    async with two_workers(slowly) as two:
        path = f"/v1/responses/{await background(two.one)}"
        run = two.one.engine.runs[0]
        assert (await two.other.request("GET", path)).json["status"] == "in_progress"
        await trio.sleep(1.5)
        assert run.log.followers == 0, "nobody followed it over there"
        async with await two.other.connect() as client:
            await client.begin("GET", f"{path}?stream=true")
            await client.head()
            await events_until(client, "first")
            assert run.log.followers == 1
        await trio.sleep(5)
        assert (await two.other.request("GET", path)).json["status"] == "completed"
        assert run.log.followers == 0


async def test_the_last_follower_may_be_at_the_other(jumping_clock: MockClock) -> None:
    async with two_workers(hanging) as two:
        async with await two.one.connect() as client, await two.other.connect() as follower:
            await client.begin("POST", "/v1/responses", ASK | {"stream": True})
            await client.head()
            seen = await events_until(client, "so far")
            await follower.begin("GET", f"/v1/responses/{ids(seen)}?stream=true")
            await follower.head()
            await events_until(follower, "so far")
            client.reset()
            await trio.sleep(1)
            assert two.one.engine.open_runs == 1
        await two.one.engine.until(lambda: two.one.engine.open_runs == 0)
        assert two.one.engine.runs[0].cancelled_because == "all clients of this response have left"


async def test_a_worker_that_is_gone_takes_its_own_responses_with_it_and_says_so(jumping_clock: MockClock) -> None:
    async with two_workers(hanging) as two:
        response_id = await background(two.one)
        own = await background(two.other)
        async with await two.other.connect() as client:
            await client.begin("GET", f"/v1/responses/{response_id}?stream=true")
            await client.head()
            seen = await events_until(client, "so far")
            two.end_one.cancel()
            seen += await events_until(client, "never")
        last = seen[-1]["response"]
        assert (last["status"], last["llm_runtime"]["incomplete_reason"]) == ("incomplete", "interrupted")
        assert last["output"][0]["content"][0]["text"] == "so far"
        gone = await two.other.request("GET", f"/v1/responses/resp_01{'0' * 30}")
        assert (gone.status, gone.json["error"]["code"]) == (404, "response_not_found")
        assert (await two.other.request("GET", f"/v1/responses/{own}")).json["status"] == "in_progress"


async def test_a_response_that_cannot_be_passed_on_is_not_told_as_ended(jumping_clock: MockClock) -> None:
    """Its worker has it whole."""

    async def unpackable(run: Run) -> None:
        begin_text(run)
        add_text(run, "so far")
        await trio.sleep(1)
        add_text(run, "\ud800")
        await trio.sleep(2)
        end_text(run)

    async with two_workers(unpackable) as two:
        path = f"/v1/responses/{await background(two.one)}"
        async with await two.other.connect() as client:
            await client.begin("GET", f"{path}?stream=true")
            await client.head()
            last = (await events_until(client, "never"))[-1]["response"]
        assert (last["status"], last["llm_runtime"]["incomplete_reason"]) == ("incomplete", "interrupted")
        await trio.sleep(3)
        assert (await two.other.request("GET", path)).status == 404
        assert (await two.one.request("GET", path)).json["status"] == "completed"


async def test_a_response_that_waits_for_its_turn_is_found_and_withdrawn(jumping_clock: MockClock) -> None:
    async with two_workers(hanging) as two, connected(two.one) as ws:
        await ws.create()
        seen: list[dict[str, Any]] = []
        while text_of(seen) != "so far":
            seen.append(await ws.event())
        await ws.create()
        queued = await ws.event()
        path = f"/v1/responses/{queued['response']['id']}"
        assert (await two.other.request("GET", path)).json["status"] == "queued"
        assert (await two.other.request("POST", f"{path}/cancel")).json["status"] == "cancelled"
        last = await ws.event()
        assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
        await trio.sleep(1)
        assert (await two.other.request("GET", path)).status == 404


async def test_a_worker_that_drains_cancels_nothing_of_the_other(jumping_clock: MockClock) -> None:
    """Its clients are told that it ends, and the response goes on."""
    async with two_workers(slowly) as two:
        path = f"/v1/responses/{await background(two.other)}"
        async with await two.one.connect() as client:
            await client.begin("GET", f"{path}?stream=true")
            await client.head()
            await events_until(client, "f")
            two.drain_one.set()
            await client.until_closed()
        await trio.sleep(5)
        assert (await two.other.request("GET", path)).json["status"] == "completed"


async def test_a_websocket_cancels_what_the_other_makes(jumping_clock: MockClock) -> None:
    async with two_workers(hanging) as two, connected(two.other) as ws:
        response_id = await background(two.one)
        await ws.send({"type": "response.cancel", "response_id": response_id, "event_id": "e"})
        assert (await ws.event())["response_id"] == response_id
        await two.one.engine.until(lambda: two.one.engine.open_runs == 0)


async def test_a_client_of_our_own_comes_back_to_another_worker(jumping_clock: MockClock) -> None:
    """Its ids are its own, and say nothing of a worker."""
    response_id = f"resp_{'f0' * 16}"
    request = ChatRequest(model="m", messages=(Message.of("user", "hi"),))
    create = {"type": "llm-runtime:create", "response_id": response_id, "request": request}
    async with two_workers(slowly) as two:
        async with connected(two.one) as ws:
            await ws.send(msgspec.json.encode(create).decode())
            assert (await ws.event())["type"] == "llm-runtime:accepted"
            seen = await ws.event()
        async with connected(two.other) as ws:
            after = seen["sequence_number"]
            await ws.send({"type": "response.resume", "response_id": response_id, "starting_after": after})
            assert (await ws.event())["type"] == "llm-runtime:accepted"
            events = seen["events"]
            while events[-1]["type"] != "finished":
                events += (await ws.event())["events"]
    assert "".join(each.get("text", "") for each in events if each["type"] == "text_delta") == "first second third"


async def test_another_callers_response_is_nobodys(jumping_clock: MockClock) -> None:
    async with two_workers(keys=KEYS) as two:
        path = f"/v1/responses/{(await two.one.request('POST', '/v1/responses', ASK, **ALICE)).json['id']}"
        assert (await two.other.request("GET", path, **BOB)).status == 404
        assert (await two.other.request("DELETE", path, **BOB)).status == 404
        assert (await two.other.request("GET", path, **ALICE)).status == 200


async def test_wrong_keys_count_for_all_workers(jumping_clock: MockClock) -> None:
    async with two_workers(keys=KEYS) as two:
        for _ in range(FAILED_LOGINS):
            assert (await two.one.request("GET", "/v1/models", **WRONG)).status == 401
        await trio.sleep(0.1)
        assert (await two.other.request("GET", "/v1/models", **WRONG)).status == 429
        assert (await two.other.request("GET", "/v1/models", **ALICE)).status == 200


async def test_a_vendors_id_is_good_at_all_workers(jumping_clock: MockClock) -> None:
    async def issuing(run: Run) -> None:
        begin_text(run)
        extra = {"anthropic": {"message": {"container": {"id": "container_1"}}}}
        whole = msgspec.structs.replace(run.folded(provider="fake"), extra=extra)
        run.finish(Finished(reason=FinishReason.STOP), whole)

    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    async with two_workers(issuing, keys=KEYS) as two:
        using = body | {"container": "container_1"}
        assert (await two.other.request("POST", "/v1/messages", using, **ALICE)).status == 400
        assert (await two.one.request("POST", "/v1/messages", body, **ALICE)).status == 200
        assert (await two.other.request("POST", "/v1/messages", using, **ALICE)).status == 200
        assert (await two.other.request("POST", "/v1/messages", using, **BOB)).status == 400
