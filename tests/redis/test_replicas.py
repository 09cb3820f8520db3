"""A response of one replica is everybody's: the others retrieve, resume, continue, cancel and delete it.

The replicas are servers in one process that know nothing of each other, and a real Redis.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import pytest
import trio
import trio.testing

from llm_actors.run import Run
from llm_actors.shared_responses import SharedResponses, SharedRow
from llm_protocol.events import Finished
from llm_protocol.requests import LLMProvider
from llm_protocol.response import FinishReason
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Key, Provider, Server
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from llm_runtime.workers.place import WorkerPlace
from llm_runtime.workers.siblings import WorkerSiblings
from support.callers import Served
from support.killable import events_until
from support.peer import Peer, reply
from support.redis import Redis, redis
from support.server import OpenServer, Script, add_text, begin_text, end_text, hanging, open_server
from support.sharing import PATIENT
from support.upstream import JSON
from support.ws import connected, ids, text_of

ASK = {"model": "m", "input": "hi"}
KEYS = {"alice": "sk-alice-0123456789", "bob": "sk-bob-0123456789"}
ALICE = {"authorization": "Bearer sk-alice-0123456789"}
BOB = {"authorization": "Bearer sk-bob-0123456789"}


HASH, LIST = "{llm-runtime}:response:", "{llm-runtime}:response-log:"


class Two(NamedTuple):
    """The replicas, and how to end the first, as a kill would and as a signal does."""

    one: OpenServer
    other: OpenServer
    end_one: trio.CancelScope
    drain_one: trio.Event


@pytest.fixture
def server() -> Iterator[Redis]:
    with redis() as server:
        settle(server)
        yield server


def settle(server: Redis) -> None:
    """It has been there for long: what it does not have does not exist."""
    assert server.command("SET", "{llm-runtime}:since", "0") == b"+OK\r\n"


def shared(server: Redis, **config: Any) -> SharedResponses:
    return SharedResponses(server.server(timeout_s=PATIENT), ttl_s=config.get("ttl_s", 1000.0))


@asynccontextmanager
async def two_replicas(server: Redis, *scripts: Script, **config: Any) -> AsyncIterator[Two]:
    """Both have the same scripts and configuration."""
    ended, scope = trio.Event(), trio.CancelScope()

    async def first(*, task_status: trio.TaskStatus[OpenServer]) -> None:
        with scope:
            async with open_server(*scripts, shared=shared(server), **config) as one:
                task_status.started(one)
                await ended.wait()

    async with trio.open_nursery() as nursery, open_server(*scripts, shared=shared(server), **config) as other:
        one = await nursery.start(first)
        yield Two(one, other, scope, ended)
        ended.set()


@asynccontextmanager
async def passing_replica(server: Redis, peer: Peer) -> AsyncIterator[Served]:
    """A replica whose one provider is ``peer``, for alice and bob."""
    addresses: list[ListenAddress] = []
    provider = Provider(kind=LLMProvider.OPENAI, base_url=f"{peer.url}/v1", api_key=Secret("sk-vendor"), models=("m",))
    keys = {name: Key(secret=Secret(f"sk-{name}"), passthrough=("* main/**",)) for name in ("alice", "bob")}
    config = Config(server=Server(port=0, drain_s=1), providers={"main": provider}, keys=keys)
    runtime = Runtime(
        config,
        servers=lambda rt: server_child(config.server, rt, addresses.append, keys=keys, shared=shared(server)),
    )
    async with runtime.running():
        yield Served(addresses[0], {"main": peer})


def worker(folder: str, number: int) -> WorkerSiblings:
    return WorkerSiblings(WorkerPlace(number=number, count=2, folder=folder, link=-1, listeners=(), copy=None))


class Gate:
    """A script that says its first word, and the rest when it is opened."""

    def __init__(self) -> None:
        self.opened = trio.Event()

    async def __call__(self, run: Run) -> None:
        begin_text(run)
        add_text(run, "first")
        await self.opened.wait()
        add_text(run, " second")
        end_text(run)


class Words:
    """A script that says words when it gets them, and ends when there are no more."""

    def __init__(self) -> None:
        self.say, self._heard = trio.open_memory_channel[str](10)

    async def __call__(self, run: Run) -> None:
        begin_text(run)
        async for word in self._heard:
            add_text(run, word)
        end_text(run)


async def background(server: OpenServer, **more: object) -> str:
    begun = (await server.request("POST", "/v1/responses", ASK | {"background": True} | more)).json
    return str(begun["id"])


async def until(server: OpenServer, path: str, status: str) -> Any:
    """Retrieve a response until it has this status. It may be unavailable meanwhile, but it is never missing."""
    with trio.fail_after(30):
        while True:
            reply = await server.request("GET", path)
            assert reply.status in (200, 503), reply.body
            if reply.json.get("status") == status:
                return reply.json
            await trio.sleep(0.02)


async def test_what_one_has_made_the_other_knows(server: Redis) -> None:
    async with two_replicas(server) as two:
        whole = (await two.one.request("POST", "/v1/responses", ASK)).json
        path = f"/v1/responses/{whole['id']}"
        assert (await two.other.request("GET", path)).json == whole
        items = (await two.other.request("GET", f"{path}/input_items")).json
        assert items["data"][0]["content"][0]["text"] == "hi"
        last = (await two.other.request("GET", f"{path}?stream=true&starting_after=999")).events
        assert [each["type"] for each in last[:-1]] == ["response.completed"]
        more = await two.other.request("POST", "/v1/responses", ASK | {"previous_response_id": whole["id"]})
        assert more.status == 200
        assert [each.text for each in two.other.engine.requests[-1].messages] == ["hi", "Hello", "hi"]  # type: ignore[union-attr]
        item = {"type": "item_reference", "id": whole["output"][0]["id"]}
        said = [item, {"role": "user", "content": "so?"}]
        assert (await two.other.request("POST", "/v1/responses", {"model": "m", "input": said})).status == 200
        assert [each.text for each in two.other.engine.requests[-1].messages] == ["Hello", "so?"]  # type: ignore[union-attr]


async def test_what_is_not_to_be_stored_is_not_in_redis(server: Redis) -> None:
    async with two_replicas(server) as two:
        whole = (await two.one.request("POST", "/v1/responses", ASK | {"store": False})).json
        assert (await two.other.request("GET", f"/v1/responses/{whole['id']}")).status == 404
        assert b"response" not in server.command("KEYS", "*")


async def test_it_is_in_redis_for_as_long_as_it_is_stored(server: Redis) -> None:
    async with two_replicas(server) as two:
        whole = (await two.one.request("POST", "/v1/responses", ASK)).json
        for key in "response", "response-log":
            left = server.command("PTTL", f"{{llm-runtime}}:{key}:{whole['id']}")
            assert 900_000 < int(left[1:]) <= 1_000_000


async def test_another_caller_does_not_get_it(server: Redis) -> None:
    async with two_replicas(server, keys=KEYS) as two:
        whole = (await two.one.request("POST", "/v1/responses", ASK, **ALICE)).json
        path = f"/v1/responses/{whole['id']}"
        for method, target in (("GET", path), ("POST", f"{path}/cancel"), ("DELETE", path)):
            assert (await two.other.request(method, target, **BOB)).status == 404
        assert (await two.other.request("GET", path, **ALICE)).json == whole


async def test_deleted_by_one_is_deleted_everywhere(server: Redis) -> None:
    async with two_replicas(server) as two:
        for maker, deleter in ((two.one, two.other), (two.other, two.one)):
            path = f"/v1/responses/{(await maker.request('POST', '/v1/responses', ASK)).json['id']}"
            assert (await deleter.request("GET", path)).status == 200
            assert (await deleter.request("DELETE", path)).json["deleted"]
            assert (await deleter.request("GET", path)).status == 404
            assert (await maker.request("GET", path)).status == 404
            assert (await deleter.request("DELETE", path)).status == 404
        # A third party's copy in memory is of no use, either.
        path = f"/v1/responses/{(await two.one.request('POST', '/v1/responses', ASK)).json['id']}"
        assert (await two.other.request("GET", path)).status == 200
        assert (await two.one.request("DELETE", path)).status == 200
        assert (await two.other.request("GET", path)).status == 404


@pytest.mark.parametrize("over", ["http", "websocket"])
async def test_a_stream_of_one_is_resumed_at_the_other_while_it_is_made(over: str, server: Redis) -> None:
    gate = Gate()
    async with two_replicas(server, gate) as two:
        response_id = await background(two.one)
        path = f"/v1/responses/{response_id}"
        assert (await until(two.other, path, "in_progress"))["id"] == response_id
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_open_later, gate)
            if over == "http":
                seen = (await two.other.request("GET", f"{path}?stream=true")).events[:-1]
            else:
                async with connected(two.other) as ws:
                    await ws.send({"type": "response.resume", "response_id": response_id, "starting_after": -1})
                    seen = await ws.response()
        assert text_of(seen) == "first second"
        numbers = [each["sequence_number"] for each in seen]
        assert numbers == sorted(set(numbers))
        whole = await until(two.one, path, "completed")
        assert seen[-1]["response"] == whole == (await two.other.request("GET", path)).json


@pytest.mark.parametrize("over", ["http", "websocket"])
async def test_a_stream_is_resumed_from_where_its_client_was_at_the_other_and_goes_on_for_it(
    over: str, server: Redis
) -> None:
    """What the client has seen may be ahead of what Redis has. It leaves the first replica once it follows here."""
    gate = Gate()
    async with two_replicas(server, gate) as two:
        async with await two.one.connect() as client:
            await client.begin("POST", "/v1/responses", ASK | {"stream": True})
            await client.head()
            seen = await events_until(client, "first")
            response_id, after = ids(seen), seen[-1]["sequence_number"]
            async with trio.open_nursery() as nursery:

                async def leave() -> None:
                    log = two.one.engine.runs[-1].log
                    with trio.fail_after(30):
                        while log.followers < 2:  # noqa: ASYNC110 - the other replica holds the run
                            await trio.sleep(0.02)
                        client.close()
                        while log.followers == 2:  # noqa: ASYNC110
                            await trio.sleep(0.02)
                    gate.opened.set()

                nursery.start_soon(leave)
                if over == "http":
                    target = f"/v1/responses/{response_id}?stream=true&starting_after={after}"
                    rest = (await two.other.request("GET", target)).events[:-1]
                else:
                    async with connected(two.other) as ws:
                        await ws.send({"type": "response.resume", "response_id": response_id, "starting_after": after})
                        rest = await ws.response()
        assert text_of([*seen, *rest]) == "first second"
        assert [each["sequence_number"] for each in rest] == list(range(after + 1, rest[-1]["sequence_number"] + 1))
        assert rest[-1]["type"] == "response.completed"


async def test_a_cursor_beyond_the_response_is_refused_at_the_other_too(
    server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_runtime.server.stored.MIRROR_BEHIND_SECONDS", 0.3)
    async with two_replicas(server, hanging) as two:
        path = f"/v1/responses/{await background(two.one)}"
        beyond = await two.other.request("GET", f"{path}?stream=true&starting_after=999")
        assert (beyond.status, beyond.json["error"]["param"]) == (400, "starting_after")


async def _open_later(gate: Gate) -> None:
    await trio.sleep(0.3)
    gate.opened.set()


@pytest.mark.parametrize("over", ["http", "websocket"])
async def test_one_cancels_what_the_other_makes(over: str, server: Redis) -> None:
    async with two_replicas(server, hanging) as two:
        response_id = await background(two.one)
        path = f"/v1/responses/{response_id}"
        if over == "http":
            told = (await two.other.request("POST", f"{path}/cancel")).json
            assert told["status"] == "cancelled"
        else:
            async with connected(two.other) as ws:
                await ws.send({"type": "response.cancel", "response_id": response_id})
                assert (await ws.event())["type"] == "llm-runtime:cancelled"
        whole = await until(two.one, path, "cancelled")
        assert whole["output"][0]["content"][0]["text"] == "so far"
        assert (await two.other.request("GET", path)).json == whole
        assert two.one.engine.open_runs == 0


async def test_one_deletes_what_the_other_makes(server: Redis) -> None:
    async with two_replicas(server, hanging) as two:
        path = f"/v1/responses/{await background(two.one)}"
        assert (await two.other.request("DELETE", path)).json["deleted"]
        for each in two.one, two.other:
            assert (await each.request("GET", path)).status == 404
        await two.one.engine.until(lambda: two.one.engine.open_runs == 0)
        await trio.sleep(0.3)
        for each in two.one, two.other:
            assert (await each.request("GET", path)).status == 404, "it does not come back"


async def test_who_asks_at_the_same_time_as_others_gets_no_older_state(
    server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two read it from Redis, one before its end and one after it. The earlier result arrives first."""
    gate, read, end_read, replied = Gate(), trio.Event(), trio.Event(), trio.Event()
    load = SharedResponses.load

    async def slow(links: SharedResponses, response_id: str, caller: str) -> SharedRow | None:
        row = await load(links, response_id, caller)
        if read.is_set():
            end_read.set()
            await replied.wait()
        else:
            read.set()
            await end_read.wait()
        return row

    async def ask(path: str) -> None:
        assert (await two.other.request("GET", path)).json["status"] == "in_progress"
        replied.set()

    async with two_replicas(server, gate) as two, trio.open_nursery() as nursery:
        path = f"/v1/responses/{await background(two.one)}"
        monkeypatch.setattr(SharedResponses, "load", slow)
        nursery.start_soon(ask, path)
        await read.wait()
        gate.opened.set()
        await until(two.one, path, "completed")
        assert (await two.other.request("GET", path)).json["status"] == "completed"


async def test_nobody_has_to_follow_a_response_of_another_for_it_to_go_on(server: Redis) -> None:
    """Who retrieved it or has followed it and left again has cancelled nothing."""
    gate = Gate()
    async with two_replicas(server, gate) as two:
        path = f"/v1/responses/{await background(two.one)}"
        async with await two.other.connect() as client:
            await client.begin("GET", f"{path}?stream=true")
            await client.head()
            await events_until(client, "first")
        await trio.sleep(1.5)
        assert (await two.other.request("GET", path)).json["status"] == "in_progress"
        gate.opened.set()
        assert (await until(two.other, path, "completed"))["output"][0]["content"][0]["text"] == "first second"


async def test_a_replica_that_drains_cancels_nothing_of_another(server: Redis) -> None:
    """Its clients are told that it ends, and the response goes on."""
    gate = Gate()
    async with two_replicas(server, gate) as two:
        path = f"/v1/responses/{await background(two.other)}"
        async with await two.one.connect() as client:
            await client.begin("GET", f"{path}?stream=true")
            await client.head()
            await events_until(client, "first")
            two.drain_one.set()
            await client.until_closed()
        await trio.sleep(0.3)
        gate.opened.set()
        assert (await until(two.other, path, "completed"))["output"][0]["content"][0]["text"] == "first second"


async def test_what_a_killed_replica_made_is_interrupted_for_all_alike(
    server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_actors.shared_responses.responses.HEARTBEAT_SECONDS", 1.5)
    monkeypatch.setattr("llm_actors.shared_responses.responses.RETURN_SECONDS", 0.3)
    async with two_replicas(server, hanging) as two, open_server(shared=shared(server)) as third:
        path = f"/v1/responses/{await background(two.one)}"
        await until(two.other, path, "in_progress")
        events: list[Any] = []

        async def follow() -> None:
            events.extend((await two.other.request("GET", f"{path}?stream=true")).events[:-1])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.sleep(0.2)
            two.end_one.cancel()
        assert events[-1]["response"]["status"] == "incomplete"
        assert events[-1]["response"]["llm_runtime"]["incomplete_reason"] == "interrupted"
        assert (await third.request("GET", path)).json == events[-1]["response"]
        assert (await two.other.request("GET", path)).json == events[-1]["response"]


async def test_a_vendors_id_is_good_at_all_replicas(server: Redis) -> None:
    async def issuing(run: Run) -> None:
        begin_text(run)
        extra = {"anthropic": {"message": {"container": {"id": "container_1"}}}}
        whole = msgspec.structs.replace(run.folded(provider="fake"), extra=extra)
        run.finish(Finished(reason=FinishReason.STOP), whole)

    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    async with two_replicas(server, issuing, keys=KEYS) as two:
        using = body | {"container": "container_1"}
        assert (await two.other.request("POST", "/v1/messages", using, **ALICE)).status == 400
        assert (await two.one.request("POST", "/v1/messages", body, **ALICE)).status == 200
        with trio.fail_after(30):
            while (await two.other.request("POST", "/v1/messages", using, **ALICE)).status != 200:  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert (await two.other.request("POST", "/v1/messages", using, **BOB)).status == 400
        server.kill()
        assert (await two.other.request("POST", "/v1/messages", using, **ALICE)).status == 200, (
            "it is known here by now"
        )
        assert (await two.other.request("POST", "/v1/messages", using, **BOB)).status == 503


async def test_an_object_made_through_the_passthrough_is_good_at_all_replicas(server: Redis) -> None:
    upload = reply(b'{"id": "file-1", "object": "file"}', headers=JSON)
    part = {"type": "file", "file": {"file_id": "file-1"}}
    using = {"model": "main/m", "messages": [{"role": "user", "content": [part]}]}
    async with (
        Peer(upload, reply(b"{}", 500)) as peer,
        passing_replica(server, peer) as one,
        passing_replica(server, peer) as other,
    ):
        assert (await other.ask("alice", "POST", "/v1/chat/completions", using)).status == 400
        assert (await one.ask("alice", "POST", "/passthrough/main/v1/files", b"x")).status == 200
        with trio.fail_after(30):
            while (await other.ask("alice", "POST", "/v1/chat/completions", using)).status == 400:  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert (await other.ask("bob", "POST", "/v1/chat/completions", using)).status == 400


async def test_workers_ask_each_other_for_what_is_not_in_redis(server: Redis) -> None:
    gate = Gate()
    with TemporaryDirectory(prefix="llm-") as folder:
        async with (
            open_server(gate, shared=shared(server), siblings=worker(folder, 1)) as one,
            open_server(gate, shared=shared(server), siblings=worker(folder, 2)) as other,
        ):
            async with await one.connect() as client:
                await client.begin("POST", "/v1/responses", ASK | {"stream": True, "store": False})
                await client.head()
                path = f"/v1/responses/{ids(await events_until(client, 'first'))}"
                assert (await other.request("GET", path)).json["status"] == "in_progress"
                gate.opened.set()
                await events_until(client, "second")
            assert b"response" not in server.command("KEYS", "*")
            whole = (await one.request("POST", "/v1/responses", ASK)).json
            path = f"/v1/responses/{whole['id']}"
            assert (await other.request("GET", path)).json == whole
            assert (await other.request("DELETE", path)).json["deleted"]
            for each in one, other:
                assert (await each.request("GET", path)).status == 404


# -- Redis is away -----------------------------------------------------------------------------------------------------


async def test_a_full_redis_is_read_and_deleted_from(server: Redis) -> None:
    async with two_replicas(server) as two:
        path = f"/v1/responses/{(await two.one.request('POST', '/v1/responses', ASK)).json['id']}"
        assert server.command("CONFIG", "SET", "maxmemory", "1") == b"+OK\r\n"
        async with open_server(shared=shared(server)) as third:
            assert (await third.request("GET", path)).status == 200
            assert (await third.request("DELETE", path)).status == 200
        assert (await two.one.request("GET", path)).status == 404


async def test_what_a_killed_replica_made_is_interrupted_in_a_full_redis_too(server: Redis) -> None:
    async with two_replicas(server, hanging) as two:
        path = f"/v1/responses/{await background(two.one)}"
        assert (await two.other.request("GET", "/v1/responses/resp_none")).status == 404
        two.end_one.cancel()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert server.command("CONFIG", "SET", "maxmemory", "1") == b"+OK\r\n"
        server.evaluate(LEAVE, (), b"")
        async with open_server(shared=shared(server)) as third:
            await until(third, path, "incomplete")


LEAVE = "for _, key in ipairs(redis.call('KEYS', '*:replica:*')) do redis.call('DEL', key) end return ''"
"""All replicas have not been heard of for too long."""


async def test_a_copy_of_another_worker_is_not_retrieved_after_a_replica_has_deleted_it(server: Redis) -> None:
    """The worker has it from its sibling, because Redis was away."""
    links = shared(server), shared(server)
    with TemporaryDirectory(prefix="llm-") as folder:
        async with (
            open_server(shared=links[0], siblings=worker(folder, 1)) as one,
            open_server(shared=links[1], siblings=worker(folder, 2)) as sibling,
            open_server(shared=shared(server)) as replica,
        ):
            server.kill()
            path = f"/v1/responses/{(await one.request('POST', '/v1/responses', ASK)).json['id']}"
            assert (await sibling.request("GET", path)).status == 200
            server.start()
            await until(replica, path, "completed")
            with trio.fail_after(30):
                while not all(each.link.is_open for each in links):  # noqa: ASYNC110
                    await trio.sleep(0.02)
            assert (await replica.request("DELETE", path)).status == 200
            assert (await one.request("GET", path)).status == 404
            assert (await sibling.request("GET", path)).status == 404


async def test_a_websocket_does_not_continue_what_another_replica_has_deleted(server: Redis) -> None:
    async with two_replicas(server) as two, connected(two.one) as ws:
        await ws.create()
        first = ids(await ws.response())
        await ws.create(previous_response_id=first)
        assert (await ws.response())[-1]["type"] == "response.completed"
        assert (await two.other.request("DELETE", f"/v1/responses/{first}")).status == 200
        await ws.create(previous_response_id=first)
        assert (await ws.event())["error"]["code"] == "previous_response_not_found"
        await ws.send({"type": "response.resume", "response_id": first, "starting_after": 0})
        assert (await ws.event())["error"]["code"] == "response_not_found"


async def test_while_redis_is_away_each_answers_for_its_own_and_refuses_the_rest(
    server: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was made meanwhile is everybody's when Redis is back, also if it comes back empty."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("llm_actors.redis_link.AWAY_SECONDS", 0.1)
    async with two_replicas(server) as two:
        before = (await two.one.request("POST", "/v1/responses", ASK)).json
        server.kill()
        path = f"/v1/responses/{before['id']}"
        assert (await two.one.request("GET", path)).json == before
        for method, target in (("GET", path), ("POST", f"{path}/cancel"), ("GET", f"{path}/input_items")):
            refused = await two.other.request(method, target)
            assert (refused.status, refused.json["error"]["code"]) == (503, "store_unavailable")
            assert refused.json["error"]["type"] == "server_error"
            assert refused.headers["retry-after"] == "1"
        refused = await two.other.request("POST", "/v1/responses", ASK | {"previous_response_id": before["id"]})
        assert refused.status == 503
        assert (await two.one.request("DELETE", path)).status == 503, "nobody else would know"
        with trio.fail_after(30):
            during = (await two.one.request("POST", "/v1/responses", ASK)).json
        assert during["status"] == "completed"
        server.start()
        assert await until(two.other, f"/v1/responses/{during['id']}", "completed") == during
        assert (await two.one.request("GET", path)).json == before, "nobody knows whether Redis gets it again"
        assert (await two.other.request("GET", path)).status == 503
        settle(server)
        assert (await two.one.request("GET", path)).status == 404, "Redis has lost it"
    assert caplog.text.count("Redis at") == 2 * 3, "each says once that it is there, away and back"


async def test_a_running_response_outlives_that_redis_comes_back_empty(
    server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_actors.redis_link.AWAY_SECONDS", 0.1)
    gate = Gate()
    async with two_replicas(server, gate) as two:
        path = f"/v1/responses/{await background(two.one)}"
        server.kill()
        await trio.sleep(0.2)
        server.start()
        await until(two.other, path, "in_progress")
        gate.opened.set()
        assert (await until(two.other, path, "completed"))["output"][0]["content"][0]["text"] == "first second"


async def test_what_becomes_too_large_only_its_replica_has(server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_actors.shared_responses.rows.LARGEST_BYTES", 10_000)
    words = Words()
    async with two_replicas(server, words) as two:
        path = f"/v1/responses/{await background(two.one)}"
        await words.say.send("x" * 20_000)
        with trio.fail_after(30):
            while (await two.other.request("GET", path)).status != 409:  # noqa: ASYNC110
                await trio.sleep(0.02)
        await words.say.send("more")
        words.say.close()
        assert (await until(two.one, path, "completed"))["output"][0]["content"][0]["text"].endswith("more")
        refused = await two.other.request("GET", path)
        assert (refused.status, refused.json["error"]["code"]) == (409, "response_elsewhere")


async def test_what_has_no_bytes_only_its_replica_has(server: Redis) -> None:
    async def surrogate(run: Run) -> None:
        begin_text(run)
        add_text(run, "\ud800")
        end_text(run)

    async with two_replicas(server, surrogate) as two:
        async with connected(two.one) as ws:
            await ws.create()
            path = f"/v1/responses/{ids(await ws.response())}"
        assert (await two.one.request("GET", path)).status == 200
        refused = await two.other.request("GET", path)
        assert (refused.status, refused.json["error"]["code"]) == (409, "response_elsewhere")


# -- Redis loses some of it --------------------------------------------------------------------------------------------


async def test_a_response_whose_row_is_lost_goes_on_for_those_who_follow_it_elsewhere(server: Redis) -> None:
    """Nobody has deleted it. It is there again when its replica writes it the next time."""
    words = Words()
    async with two_replicas(server, words) as two, await two.other.connect() as client:
        path = f"/v1/responses/{await background(two.one)}"
        await words.say.send("first")
        await client.begin("GET", f"{path}?stream=true")
        await client.head()
        seen = await events_until(client, "first")
        name = path.rpartition("/")[2]
        assert server.command("DEL", HASH + name, LIST + name) == b":2\r\n"
        for _ in range(10):
            assert (await two.other.request("GET", path)).status == 503
            await trio.sleep(0.03)
        assert two.one.engine.runs[0].cancelled_because is None
        await words.say.send(" second")
        seen += await events_until(client, " second")
        words.say.close()
        seen += await events_until(client, "no more")
        assert text_of(seen) == "first second"
        assert seen[-1]["response"] == await until(two.one, path, "completed")
        assert (await two.other.request("GET", path)).json == seen[-1]["response"]


async def test_who_follows_it_elsewhere_misses_nothing_when_redis_falls_behind(server: Redis) -> None:
    """As when a copy takes over that lacks the latest pieces."""
    words = Words()
    async with two_replicas(server, words) as two, await two.other.connect() as client:
        path = f"/v1/responses/{await background(two.one)}"
        name = path.rpartition("/")[2]
        await words.say.send("first")
        await client.begin("GET", f"{path}?stream=true")
        await client.head()
        seen = await events_until(client, "first")
        count = server.evaluate("return redis.call('HGET', KEYS[1], 'n')", [HASH + name], b"")
        pieces = server.evaluate("return tostring(redis.call('LLEN', KEYS[1]))", [LIST + name], b"")
        for word in " second", " third":
            await words.say.send(word)
            seen += await events_until(client, word)
        assert server.command("LTRIM", LIST + name, "0", str(int(pieces) - 1)) == b"+OK\r\n"
        assert server.command("HSET", HASH + name, "n", count) == b":0\r\n"
        await words.say.send(" fourth")
        await words.say.send(" fifth")
        seen += await events_until(client, " fifth")
        words.say.close()
        seen += await events_until(client, "no more")
        assert text_of(seen) == "first second third fourth fifth"
        assert seen[-1]["response"] == await until(two.one, path, "completed")


async def test_a_response_whose_log_is_lost_is_not_taken_for_a_running_one(server: Redis) -> None:
    async with two_replicas(server) as two:
        whole = (await two.one.request("POST", "/v1/responses", ASK)).json
        path = f"/v1/responses/{whole['id']}"
        server.command("DEL", LIST + whole["id"])
        assert (await two.other.request("GET", path)).status == 404
        assert (await two.one.request("GET", path)).json == whole


async def test_a_running_response_whose_log_is_lost_is_written_again(server: Redis) -> None:
    words = Words()
    async with two_replicas(server, words) as two:
        path = f"/v1/responses/{await background(two.one)}"
        await words.say.send("first")
        with trio.fail_after(30):
            while server.command("DEL", LIST + path.rpartition("/")[2]) != b":1\r\n":  # noqa: ASYNC110
                await trio.sleep(0.02)
        await words.say.send(" second")
        words.say.close()
        assert (await until(two.other, path, "completed"))["output"][0]["content"][0]["text"] == "first second"


async def test_a_silent_response_is_written_again_when_redis_is_emptied(server: Redis) -> None:
    """Its connections stay, and meanwhile nobody is told that there is no such response."""
    async with two_replicas(server, Words()) as two:
        path = f"/v1/responses/{await background(two.one)}"
        server.command("FLUSHALL")
        assert (await until(two.other, path, "in_progress"))["id"] == path.rpartition("/")[2]


async def test_what_is_followed_elsewhere_goes_on_while_redis_is_away(
    server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_actors.redis_link.AWAY_SECONDS", 0.1)
    words = Words()
    async with two_replicas(server, words) as two, await two.other.connect() as follower:
        async with await two.one.connect() as client:
            await client.begin("POST", "/v1/responses", ASK | {"stream": True})
            await client.head()
            await words.say.send("first")
            response_id = ids(await events_until(client, "first"))
            await follower.begin("GET", f"/v1/responses/{response_id}?stream=true")
            await follower.head()
            seen = await events_until(follower, "first")
            await trio.sleep(0.5)
        server.kill()
        await trio.sleep(3.5)
        assert two.one.engine.runs[0].cancelled_because is None
        server.start()
        await words.say.send(" second")
        words.say.close()
        seen += await events_until(follower, "no more")
        assert text_of(seen) == "first second"
