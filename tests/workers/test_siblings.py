"""What a worker asks of others that answer badly, late or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from llm_actors.run import Run
from llm_actors.threads import LARGE_BYTES
from llm_protocol.content import Message
from llm_protocol.dialect import ClientRequest
from llm_protocol.events import Failed, TextDelta
from llm_protocol.failures import FailureKind
from llm_protocol.requests import ChatRequest
from llm_protocol.wires.responses import ResponseOptions
from llm_runtime.config import Server
from llm_runtime.server.issued_ids import IssuedIds
from llm_runtime.server.packing import EVENTS_AT_ONCE, pack_head, pack_log
from llm_runtime.server.response_store import ResponseStore, StoredResponse
from llm_runtime.server.siblings import WorkerState
from llm_runtime.workers.answering import listen_at
from llm_runtime.workers.messages import (
    BrokenAnswer,
    CountAnswer,
    FoundAnswer,
    FrameReader,
    NothingAnswer,
    PieceAnswer,
    QueuedAnswer,
    send,
)
from llm_runtime.workers.place import WorkerPlace, socket_path
from llm_runtime.workers.siblings import ANSWER_SECONDS, FIRST_SECONDS, WorkerSiblings
from support.server import add_text, begin_text, end_text

ID = f"resp_01{'0' * 30}"
JUNK = b"\0\0\0\4junk"

Peer = Callable[[trio.SocketStream], Awaitable[None]]
"""How another worker answers a question."""


class State:
    """What this worker knows."""

    def __init__(self) -> None:
        self.response_store = ResponseStore(Server())
        self.issued = IssuedIds({})

    def adopt(self, stored: StoredResponse) -> None:
        self.response_store.adopt(stored, trio.current_time())

    @property
    def mirrored(self) -> StoredResponse:
        found = self.response_store.find(ID, "")
        assert found is not None
        return found

    async def end(self) -> Failed:
        """How the response ends for who follows it here."""
        run = self.mirrored.run
        with run.follow():
            await run.log.wait_ended()
            await trio.sleep(2)
        assert isinstance(run.log.end, Failed)
        return run.log.end


@asynccontextmanager
async def worker(*peers: Peer) -> AsyncIterator[tuple[WorkerSiblings, State, trio.CancelScope]]:
    """A worker that has ``peers`` as siblings, and what ends it."""

    async def answer(peer: Peer, stream: trio.SocketStream) -> None:
        async with stream:
            await FrameReader(stream).next()
            await peer(stream)

    own = trio.CancelScope()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        with own:
            await siblings.run(cast("WorkerState", state), task_status=task_status)

    with TemporaryDirectory(prefix="llm-") as folder:
        count = len(peers) + 1
        place = WorkerPlace(number=count, count=count, folder=folder, link=-1, listeners=(), copy=None)
        siblings, state = WorkerSiblings(place), State()
        async with trio.open_nursery() as nursery:
            for number, peer in enumerate(peers, 1):
                listener = listen_at(socket_path(folder, number))
                nursery.start_soon(partial(trio.serve_listeners, partial(answer, peer), [listener]))
            await nursery.start(run)
            yield siblings, state, own
            nursery.cancel_scope.cancel()


def saying(*messages: Any) -> Peer:
    """A worker that says this, or these bytes, and then no more."""

    async def peer(stream: trio.SocketStream) -> None:
        for each in messages:
            await (stream.send_all(each) if isinstance(each, bytes) else send(stream, each))
        await trio.sleep_forever()

    return peer


def leaving(*messages: Any) -> Peer:
    """A worker that says this and ends."""

    async def peer(stream: trio.SocketStream) -> None:
        for each in messages:
            await send(stream, each)

    return peer


HANGING = saying()
NOTHING = leaving(NothingAnswer())


def a_run(text: str = "hi") -> Run:
    return Run(ChatRequest(model="m", messages=(Message.of("user", text),)), stream=True, response_id=ID)


def found(run: Run, *, store: bool = True) -> FoundAnswer:
    head = pack_head(ClientRequest(run.request, True), ResponseOptions(store=store), 0)
    return FoundAnswer(head, pack_log(run.log.events))


def begun() -> FoundAnswer:
    """A response that is being made."""
    run = a_run()
    begin_text(run)
    add_text(run, "so far")
    return found(run)


def ended(run: Run | None = None, *, store: bool = True) -> FoundAnswer:
    run = run or a_run()
    begin_text(run)
    end_text(run)
    return found(run, store=store)


async def test_all_workers_that_hang_are_waited_for_together(jumping_clock: MockClock) -> None:
    async with worker(HANGING, HANGING, HANGING) as (siblings, state, _):
        began = trio.current_time()
        await siblings.bring(ID, "")
        assert trio.current_time() - began == pytest.approx(ANSWER_SECONDS, abs=0.1)
        assert not state.response_store.knows(ID)


async def test_one_that_hangs_does_not_keep_what_another_has(jumping_clock: MockClock) -> None:
    async with worker(HANGING, HANGING, saying(ended())) as (siblings, state, _):
        began = trio.current_time()
        await siblings.bring(ID, "")
        assert trio.current_time() - began == pytest.approx(FIRST_SECONDS, abs=0.1)
        assert state.mirrored.run.log.end is not None


async def test_the_worker_that_the_id_names_is_asked_alone(jumping_clock: MockClock) -> None:
    async def fail(stream: trio.SocketStream) -> None:
        raise AssertionError("it was asked")

    async with worker(saying(ended()), fail) as (siblings, state, _):
        await siblings.bring(ID, "")
        assert state.response_store.knows(ID)


@pytest.mark.parametrize(
    "answer",
    [JUNK, FoundAnswer(b"junk", []), QueuedAnswer(b"junk"), CountAnswer(1), BrokenAnswer()],
    ids=["frame", "head", "queued", "another", "broken"],
)
async def test_an_answer_that_cannot_be_read_is_none(answer: Any, jumping_clock: MockClock) -> None:
    async with worker(saying(answer)) as (siblings, state, _):
        await siblings.bring(ID, "")
        assert not state.response_store.knows(ID)


async def test_a_view_that_cannot_be_read_is_left_out(
    jumping_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(saying(JUNK)) as (siblings, _, _):
        assert await siblings.forget(None, "") == 0
        assert "a message of worker 1 cannot be read: " in caplog.text


@pytest.mark.parametrize(
    "piece", [JUNK, PieceAnswer([b"junk"]), CountAnswer(1), BrokenAnswer()], ids=["frame", "piece", "another", "broken"]
)
async def test_a_response_that_cannot_be_read_further_is_given_up(piece: Any, jumping_clock: MockClock) -> None:
    """It is whole where it is made, and must not be told here otherwise for good."""
    async with worker(saying(begun(), piece)) as (siblings, state, _):
        await siblings.bring(ID, "")
        end = await state.end()
        assert (end.failure.kind, end.failure.partial) == (FailureKind.INTERRUPTED, True)
        assert "cannot be" in end.failure.message
        assert not state.response_store.knows(ID)


async def test_a_response_whose_worker_has_ended_is_kept(jumping_clock: MockClock) -> None:
    async with worker(leaving(begun())) as (siblings, state, _):
        await siblings.bring(ID, "")
        end = await state.end()
        assert end.failure.message == "the worker that produced this response has ended; the response is incomplete"
        assert end.response is not None
        assert end.response.message.text == "so far"
        await trio.sleep(2)
        assert state.mirrored.run.log.end is end


async def test_a_worker_that_ends_tells_nothing_wrong_of_others(jumping_clock: MockClock) -> None:
    async with worker(saying(begun())) as (siblings, state, own):
        await siblings.bring(ID, "")
        run = state.mirrored.run
        with run.follow():
            await trio.testing.wait_all_tasks_blocked()
            own.cancel()
            await run.log.wait_ended()
        assert isinstance(run.log.end, Failed)
        assert run.log.end.failure.kind is FailureKind.SHUTTING_DOWN
        await trio.testing.wait_all_tasks_blocked()
        assert not state.response_store.knows(ID)


async def test_a_response_that_has_ended_and_is_not_stored_is_there_for_a_moment(jumping_clock: MockClock) -> None:
    """Its connection broke, and its client comes back to this worker."""
    async with worker(saying(ended(store=False))) as (siblings, state, _):
        await siblings.bring(ID, "")
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert state.mirrored.run.log.end is not None
        await trio.sleep(2)
        assert not state.response_store.knows(ID)


async def test_a_large_response_comes_whole(jumping_clock: MockClock) -> None:
    run = a_run("x" * LARGE_BYTES)
    begin_text(run)
    texts = [str(number) for number in range(3 * EVENTS_AT_ONCE)]
    for text in texts:
        run.log.append(TextDelta(0, text))
    more = run.log.read(EVENTS_AT_ONCE)
    async with worker(saying(found(run))) as (siblings, state, _):
        await siblings.bring(ID, "")
        assert state.mirrored.run.folded().content == "".join(texts)
        assert state.mirrored.run.log.read(EVENTS_AT_ONCE) == more
        assert state.mirrored.inbound.request == run.request


async def test_what_is_cancelled_here_is_cancelled_there(jumping_clock: MockClock) -> None:
    peers = iter((saying(begun()), leaving(CountAnswer(1))))

    async def peer(stream: trio.SocketStream) -> None:
        await next(peers)(stream)

    async with worker(peer) as (siblings, state, _):
        await siblings.bring(ID, "")
        run = state.mirrored.run
        with run.follow():
            run.cancel("the client cancelled the response")
            await run.log.wait_ended()
        await trio.sleep(0.1)
        assert next(peers, None) is None, "it was asked for that"
        assert not state.response_store.knows(ID)
