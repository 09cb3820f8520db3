"""Which responses a server writes to its store, and what it tells before they are there."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio

from llm_actors.kernel import Supervisor, running
from llm_actors.run import Run
from llm_actors.store import StoreAwayError, StoredResponseRow, StoreRef, StoreThread, load, store_child
from llm_actors.store.ledger import Ledger
from llm_actors.store.tier import StoreTier
from llm_actors.threads import LARGE_BYTES
from llm_protocol.content import Message
from llm_protocol.dialect import ClientRequest
from llm_protocol.events import Failed
from llm_protocol.failures import FailureKind
from llm_protocol.requests import ChatRequest
from llm_protocol.wires.responses import ResponseOptions
from llm_runtime.config import Server
from llm_runtime.server.packing import pack_events, pack_head
from llm_runtime.server.persistence import ResponsePersistence, restored
from llm_runtime.server.response_store import ResponseStore
from support.server import OpenServer, Script, add_text, begin_text, end_text, hanging, open_server, saying
from support.ws import connected, ids

ASK = {"model": "m", "input": "the prompt"}


@asynccontextmanager
async def server_with_store(path: Path, *scripts: Script, **config: Any) -> AsyncIterator[tuple[OpenServer, StoreRef]]:
    spec = store_child(StoreThread(StoreTier(str(path), max_bytes=10_000_000, ttl_s=1e6)), Ledger())
    root = Supervisor([spec])
    async with running(root), open_server(*scripts, **config) as server:
        server.engine.store = root.ref(spec)
        yield server, root.ref(spec)


async def surrogate(run: Run) -> None:
    """What has no UTF-8."""
    begin_text(run)
    add_text(run, "\ud800")
    end_text(run)


async def test_what_was_told_is_in_the_file_and_what_is_not_to_be_stored_is_not(tmp_path: Path) -> None:
    async with server_with_store(tmp_path / "s") as (server, store):
        whole = (await server.request("POST", "/v1/responses", ASK)).json
        row = await load(store, whole["id"], "")
        assert row is not None
        assert row.ended_at is not None
        unstored = (await server.request("POST", "/v1/responses", ASK | {"store": False})).json
        assert await load(store, unstored["id"], "") is None
        events = (await server.request("POST", "/v1/responses", ASK | {"stream": True})).events
        assert await load(store, events[0]["response"]["id"], "") is not None
        async with connected(server) as ws:
            await ws.create()
            seen = await ws.response()
            assert await load(store, ids(seen), "") is not None
        warmed = (await server.request("POST", "/v1/responses", ASK | {"generate": False})).json
        assert await load(store, warmed["id"], "") is not None


async def test_what_memory_has_no_room_for_is_read_from_the_file(tmp_path: Path) -> None:
    async with server_with_store(tmp_path / "s", stored_mb=0.001, keys={"a": "key-of-a", "b": "key-of-b"}) as (
        server,
        _,
    ):
        whole = (await server.request("POST", "/v1/responses", ASK, authorization="Bearer key-of-a")).json
        await trio.sleep(2.5)
        target = f"/v1/responses/{whole['id']}"
        assert (await server.request("GET", target, authorization="Bearer key-of-b")).status == 404
        assert (await server.request("GET", target, authorization="Bearer key-of-a")).json == whole


async def test_what_comes_back_from_the_file_is_told_once(tmp_path: Path) -> None:
    """So that its caller may use the vendor's ids in it again."""
    async with server_with_store(tmp_path / "s") as (server, store):
        whole = (await server.request("POST", "/v1/responses", ASK)).json
        told: list[Run] = []
        persistence = ResponsePersistence(lambda: store, ResponseStore(Server()), told.append)
        for _ in range(2):
            await persistence.bring(whole["id"], "")
        assert [run.response_id for run in told] == [whole["id"]]


async def test_a_large_one_that_two_want_at_once_is_told_once(tmp_path: Path) -> None:
    async with server_with_store(tmp_path / "s") as (server, store):
        ask = ASK | {"input": "x" * LARGE_BYTES}
        whole = (await server.request("POST", "/v1/responses", ask)).json
        told: list[Run] = []
        persistence = ResponsePersistence(lambda: store, ResponseStore(Server()), told.append)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(persistence.bring, whole["id"], "")
        assert [run.response_id for run in told] == [whole["id"]]


async def test_a_large_response_is_read_from_the_file(tmp_path: Path) -> None:
    """In a thread, where there is no clock of Trio's."""
    ask = ASK | {"input": "x" * LARGE_BYTES}
    async with server_with_store(tmp_path / "s") as (server, store):
        whole = (await server.request("POST", "/v1/responses", ask)).json
        async with open_server() as later:
            later.engine.store = store
            reply = await later.request("GET", f"/v1/responses/{whole['id']}")
            assert (reply.status, reply.json) == (200, whole)


async def test_a_large_response_that_was_cut_off_is_read_from_the_file() -> None:
    run = Run(ChatRequest(model="m", messages=(Message.of("user", "hi"),)), stream=True)
    begin_text(run)
    add_text(run, "so far")
    head = pack_head(ClientRequest(run.request, True), ResponseOptions(), 0)
    row = StoredResponseRow("", head, (pack_events(run.log.events),), ended_at=7.0, interrupted=True)
    cut_off = await trio.to_thread.run_sync(restored, run.response_id, row, trio.current_time())
    end = cut_off.run.log.end
    assert isinstance(end, Failed)
    assert end.failure.kind is FailureKind.INTERRUPTED
    assert end.response is not None
    assert (end.response.message.text, end.response.timestamp, end.response.processing_time_ms) == ("so far", 7.0, 0.0)


async def test_an_item_of_a_response_in_the_file_can_be_referred_to(tmp_path: Path) -> None:
    async with server_with_store(tmp_path / "s", saying("Hello")) as (server, store):
        whole = (await server.request("POST", "/v1/responses", ASK)).json
        async with open_server() as later:
            later.engine.store = store
            item = {"type": "item_reference", "id": whole["output"][0]["id"]}
            said = {"role": "user", "content": "more"}
            reply = await later.request("POST", "/v1/responses", ASK | {"input": [item, said]})
            assert reply.status == 200
            assert [each.text for each in later.engine.requests[0].messages] == ["Hello", "more"]  # type: ignore[union-attr]


@pytest.mark.parametrize("problem", ["none", "no file", "no bytes"])
async def test_who_asks_is_answered_whatever_the_store_does(tmp_path: Path, problem: str) -> None:
    path = tmp_path / "s"
    if problem == "no file":
        path.mkdir()
    script = surrogate if problem == "no bytes" else saying("Hello")
    async with server_with_store(path, script) as (server, store):
        for _ in range(3):
            with trio.fail_after(2):
                whole = (await server.request("POST", "/v1/responses", ASK)).json
            assert whole["status"] == "completed"
            assert (await server.request("GET", f"/v1/responses/{whole['id']}")).json == whole
            if problem == "no file":
                with pytest.raises(StoreAwayError):
                    await load(store, whole["id"], "")
            else:
                assert (await load(store, whole["id"], "") is not None) == (problem == "none")
            assert (await server.request("DELETE", f"/v1/responses/{whole['id']}")).status == 200


async def test_a_drain_leaves_nothing_half_written(tmp_path: Path) -> None:
    async with server_with_store(tmp_path / "s", hanging, drain_s=0.1) as (server, _):
        begun = (await server.request("POST", "/v1/responses", ASK | {"background": True})).json
        server.engine.runs[0].cancel("the runtime is shutting down", FailureKind.SHUTTING_DOWN)
    async with server_with_store(tmp_path / "s") as (server, _):
        now = (await server.request("GET", f"/v1/responses/{begun['id']}")).json
        assert now["status"] == "failed"
        assert now["output"][0]["content"][0]["text"] == "so far"


async def test_the_prompt_is_in_the_blobs_of_the_file_alone(tmp_path: Path) -> None:
    async with server_with_store(tmp_path / "s") as (server, _):
        await server.request("POST", "/v1/responses", ASK)
    with closing(sqlite3.connect(tmp_path / "s")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        for table in tables:
            for row in db.execute(f"SELECT * FROM {table}"):
                assert all("the prompt" not in str(each) for each in row if not isinstance(each, bytes))
