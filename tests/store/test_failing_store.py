"""What clients are told, and what is in the file, while the store's file takes no changes but can be read."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio
from trio.testing import MockClock

from llm_actors.kernel import Supervisor, running
from llm_actors.run import Run
from llm_actors.store import (
    BeginResponse,
    DeleteResponse,
    EndResponse,
    StoredResponseRow,
    StoreRef,
    StoreThread,
    load,
    persist,
    store_child,
)
from llm_actors.store.ledger import By, Ledger, SpendRow, SpentBy
from llm_actors.store.messages import Load, Loaded, Persist
from llm_actors.store.owner import Owner
from llm_actors.store.tier import StoreTier
from llm_actors.store.write import Write
from llm_protocol.content import Message
from llm_protocol.dialect import ClientRequest
from llm_protocol.requests import ChatRequest
from llm_protocol.wires.responses import ResponseOptions
from llm_runtime.config import Config, Server, StoreConfig
from llm_runtime.runtime import Runtime
from llm_runtime.server.limits import STORE_REST_SECONDS
from llm_runtime.server.persistence import ResponsePersistence
from llm_runtime.server.response_store import ResponseStore, StoredResponse
from support.server import OpenServer, Script, add_text, begin_text, end_text, open_server

ASK = {"model": "m", "input": "hi"}


class FullDisk:
    """A file on a disk that is full, or cannot be read, from time to time."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger()
        self.is_full = False
        self.is_readable = True
        self._tier = StoreTier(str(path), max_bytes=10_000_000, ttl_s=1e6, owner=self.ledger.owner)

    def open(self) -> None:
        self._tier.open()

    def write(self, writes: Sequence[Write]) -> bool:
        return not self.is_full and self._tier.write(writes)

    def find(self, response_id: str, caller: str) -> Loaded | None:
        return self._tier.find(response_id, caller) if self.is_readable else None

    def spend(self, by: By, since: float, caller: str | None) -> tuple[SpendRow, ...] | None:
        return self._tier.spend(by, since, caller)

    def spent(self, since: float) -> tuple[SpentBy, ...] | None:
        return self._tier.spent(since)

    def close(self) -> None:
        self._tier.close()


@asynccontextmanager
async def served(path: Path, *scripts: Script) -> AsyncIterator[tuple[OpenServer, StoreRef, FullDisk]]:
    disk = FullDisk(path)
    spec = store_child(StoreThread(disk), disk.ledger)
    root = Supervisor([spec])
    async with running(root), open_server(*scripts) as server:
        server.engine.store = root.ref(spec)
        yield server, root.ref(spec), disk


async def test_a_deletion_that_the_file_does_not_take_is_refused(tmp_path: Path) -> None:
    """Else the response would be back as soon as it is read from the file."""
    async with served(tmp_path / "s") as (server, store, disk):
        whole = (await server.request("POST", "/v1/responses", ASK)).json
        disk.is_full = True
        reply = await server.request("DELETE", f"/v1/responses/{whole['id']}")
        assert (reply.status, reply.json["error"]["code"]) == (503, "store_unavailable")
        assert "retry-after" in reply.headers
        assert (await server.request("GET", f"/v1/responses/{whole['id']}")).json == whole
        assert await load(store, whole["id"], "") is not None


async def test_a_response_in_a_file_that_cannot_be_read_is_not_said_to_be_missing(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as (server, store, disk), open_server() as later:
        whole = (await server.request("POST", "/v1/responses", ASK)).json
        later.engine.store = store
        path = f"/v1/responses/{whole['id']}"
        disk.is_readable = False
        for method, target, body in (
            ("GET", path, None),
            ("GET", f"{path}/input_items", None),
            ("DELETE", path, None),
            ("POST", f"{path}/cancel", None),
            ("POST", "/v1/responses", ASK | {"previous_response_id": whole["id"]}),
            ("GET", "/v1/responses/resp_" + 32 * "0", None),
        ):
            reply = await later.request(method, target, body)
            assert (reply.status, reply.json["error"]["code"]) == (503, "store_unavailable"), target
            assert "retry-after" in reply.headers
        assert (await later.request("GET", "/v1/responses/resp_of_another_server")).status == 404
        disk.is_readable = True
        assert (await later.request("GET", path)).json == whole
        assert (await later.request("GET", "/v1/responses/resp_" + 32 * "0")).status == 404


class Rows:
    """The store as the server sees it: the states of its rows. While it is full, it takes nothing."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.is_full = False

    async def call(self, message: Persist | Load) -> bool | Loaded:
        await trio.lowlevel.checkpoint()
        if isinstance(message, Load):
            row = StoredResponseRow("", b"", (), None, interrupted=False)
            return Loaded(row if message.response_id in self.states else None)
        for each in () if self.is_full else message.writes:
            match each:
                case BeginResponse():
                    self.states[each.id] = "running"
                case EndResponse():
                    self.states[each.id] = "ended"
                case DeleteResponse():
                    self.states.pop(each.id, None)
                case _:
                    pass
        return not self.is_full


@pytest.mark.parametrize("problem", ["full", "no bytes"])
async def test_what_the_file_has_begun_and_does_not_take_to_its_end_is_removed(
    problem: str, autojump_clock: MockClock
) -> None:
    """It is in memory alone, and its row would say as long as this process lives that it is being made."""
    rows = Rows()
    persistence = ResponsePersistence(lambda: cast("StoreRef", rows), ResponseStore(Server()), lambda _: None)
    run = Run(ChatRequest(model="m", messages=(Message.of("user", "hi"),)), stream=True)
    begin_text(run)
    async with trio.open_nursery() as nursery:
        await nursery.start(persistence.run)
        persistence.keep(StoredResponse(run, ClientRequest(run.request, True), ResponseOptions(), (), 10))
        await persistence.wait_begun(run.response_id)
        assert rows.states == {run.response_id: "running"}
        rows.is_full = problem == "full"
        add_text(run, "\ud800" if problem == "no bytes" else "more")
        end_text(run)
        await trio.sleep(1)
        assert persistence.live.get(run.response_id) is None, "nobody waits for it any more"
        rows.is_full = False
        await persistence.bring(run.response_id, "")  # which would say that another process makes it
        await trio.sleep(2 * STORE_REST_SECONDS)
        assert rows.states == {}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_stopping", [False, True])
async def test_what_ends_while_the_file_takes_nothing_is_written_when_it_does(
    is_stopping: bool, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk for a moment must not cost the responses of that moment at the next restart."""
    monkeypatch.setattr("llm_runtime.server.persistence.RETRY_BYTES", 15)  # one at a time
    rows, responses = Rows(), ResponseStore(Server())
    persistence = ResponsePersistence(lambda: cast("StoreRef", rows), responses, lambda _: None)
    runs = [Run(ChatRequest(model="m", messages=(Message.of("user", "hi"),)), stream=True) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        await nursery.start(persistence.run)
        for run in runs:
            stored = StoredResponse(run, ClientRequest(run.request, True), ResponseOptions(), (), 10)
            responses.put(stored)
            persistence.keep(stored)
            await persistence.wait_begun(run.response_id)
            rows.is_full = True
            begin_text(run)
            end_text(run)
            await trio.sleep(1)
            assert persistence.live.get(run.response_id) is None, "nobody waits for it any more"
        responses.tick(trio.current_time())
        rows.is_full = False
        if is_stopping:
            await persistence.flush()
        else:
            await trio.sleep(2 * STORE_REST_SECONDS)
        assert rows.states == {run.response_id: "ended" for run in runs}
        nursery.cancel_scope.cancel()


class SlowRows(Rows):
    """Each write waits until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = trio.Event()
        self.let_through = trio.Event()

    async def call(self, message: Persist | Load) -> bool | Loaded:
        if isinstance(message, Persist):
            self.asked.set()
            await self.let_through.wait()
            self.asked, self.let_through = trio.Event(), trio.Event()
        return await super().call(message)


async def test_an_end_that_the_file_does_not_have_yet_is_not_told() -> None:
    """Another replica or the next process would say that the response is in progress, or was interrupted."""
    rows = SlowRows()

    async def quick(run: Run) -> None:
        await rows.asked.wait()
        end_text(run)
        rows.let_through.set()
        await trio.lowlevel.checkpoint()

    async with open_server(quick) as server:
        server.engine.store = cast("StoreRef", rows)
        made = (await server.request("POST", "/v1/responses", ASK | {"background": True})).json
        assert (made["status"], rows.states[made["id"]]) == ("in_progress", "running")
        await rows.asked.wait()
        rows.let_through.set()
        retrieved = (await server.request("GET", f"/v1/responses/{made['id']}")).json
        assert (retrieved["status"], rows.states[made["id"]]) == ("completed", "ended")


class Bad:
    """A change that crashes the store's actor."""

    @property
    def size(self) -> int:
        raise RuntimeError("a bug")

    def apply(self, db: sqlite3.Connection, owner: str) -> None: ...


async def test_a_runtime_that_stops_while_its_store_is_parked_releases_the_lock(tmp_path: Path) -> None:
    other = Owner(str(tmp_path / "s"))
    runtime = Runtime(Config(store=StoreConfig(path=str(tmp_path / "s"))))
    async with runtime.running():
        assert runtime.store is not None
        assert await persist(runtime.store, (BeginResponse("a", "me", 1.0, b"head"),))
        while "parked" not in str(msgspec.to_builtins(runtime.tree())):
            assert not await persist(runtime.store, (Bad(),))
            await trio.sleep(0.01)
        [mine] = other.others()
        assert other.is_alive(mine)
    assert not other.is_alive(mine)
