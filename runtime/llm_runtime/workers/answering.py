"""Answers the questions of other workers."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, final

import msgspec
import trio

from llm_actors.kernel.errors import exception_site
from llm_actors.threads import run_large
from llm_protocol.events import Event
from llm_protocol.requests import size_of
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.packing import EVENTS_AT_ONCE, pack_head, pack_log
from llm_runtime.server.response_store import StoredResponse
from llm_runtime.server.siblings import WorkerState
from llm_runtime.server.subscription import WakeupEvent
from llm_runtime.workers.messages import (
    QUESTIONS,
    BrokenAnswer,
    CancelQuestion,
    CountAnswer,
    DropQuestion,
    FollowQuestion,
    ForgetQuestion,
    FoundAnswer,
    FrameReader,
    IdsAnswer,
    IssuedQuestion,
    LookQuestion,
    NothingAnswer,
    PieceAnswer,
    QueuedAnswer,
    SeenAnswer,
    WorkerAnswer,
    WorkerQuestion,
    WorkerView,
    WrongKeyNotice,
    send,
)

BACKLOG: Final = 1_024
QUESTION_SECONDS: Final = 5.0
"""Seconds that a question may take to arrive."""

_UNPACKABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""The exceptions of packing for a value that msgspec cannot encode, and of `send` for a frame that is too long."""

log = logging.getLogger(__name__)


def listen_at(path: str) -> trio.SocketListener:
    """Listen for questions at ``path``; an existing file is replaced. Raises `OSError`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(listener))


@final
class Answering:
    """Answers questions from ``server_state``."""

    def __init__(self, server_state: WorkerState) -> None:
        self._server_state = server_state

    async def answer(self, stream: trio.SocketStream) -> None:
        """Answer the question that arrives over ``stream``. Errors end only this question."""
        async with stream:
            try:
                question = await self._question(stream)
                if question is not None:
                    await self._answer(stream, question)
            except trio.BrokenResourceError:
                pass
            except Exception as exc:
                log.error("a request from another worker failed: %s", exception_site(exc))  # noqa: TRY400

    async def _question(self, stream: trio.SocketStream) -> WorkerQuestion | None:
        with trio.move_on_after(QUESTION_SECONDS):
            frame = await FrameReader(stream).next()
            return None if frame is None else QUESTIONS.decode(frame)
        return None

    async def _answer(self, stream: trio.SocketStream, question: WorkerQuestion) -> None:
        match question:
            case WrongKeyNotice(peer):
                self._server_state.access.failed.count(peer)
            case FollowQuestion(response_id, caller):
                await self._show(stream, response_id, caller)
            case _:
                await send(stream, await self._short_answer(question))

    async def _short_answer(self, question: WorkerQuestion) -> WorkerAnswer:
        response_store = self._server_state.response_store
        match question:
            case CancelQuestion(response_id, caller):
                if (waiting := response_store.find_waiting(response_id, caller)) is not None:
                    waiting.withdraw()
                    return CountAnswer(1)
                stored = response_store.find_own(response_id, caller)
                if stored is not None:
                    stored.run.cancel("the client cancelled the response")
                return CountAnswer(int(stored is not None))
            case DropQuestion(response_id, caller):
                try:
                    return CountAnswer(int(await self._server_state.drop_own(response_id, caller)))
                except HttpError:  # the worker that asks gets the same error for its own copy
                    return CountAnswer(0)
            case IssuedQuestion(caller, ids):
                return IdsAnswer(self._server_state.issued.those_of(caller, ids))
            case ForgetQuestion(conversation, caller):
                return CountAnswer(self._server_state.engine.forget(conversation, caller=caller))
            case LookQuestion(view, only):
                return SeenAnswer(await self._view(view, only))
            case _:
                raise AssertionError(question)

    async def _view(self, view: WorkerView, caller: str | None) -> bytes:
        engine = self._server_state.engine
        match view:
            case WorkerView.METRICS:
                return await engine.metrics()
            case WorkerView.STATISTICS:
                return msgspec.json.encode(await engine.statistics(caller))
            case WorkerView.RECENT:
                return msgspec.json.encode(engine.recent_requests(caller))
            case WorkerView.TREE:
                return msgspec.json.encode(engine.tree(), enc_hook=str)

    # -- one response ------------------------------------------------------------------------------------------------

    async def _show(self, stream: trio.SocketStream, response_id: str, caller: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_gone, stream, nursery.cancel_scope)
            with suppress(trio.BrokenResourceError):
                try:
                    await self._show_any(stream, response_id, caller)
                except _UNPACKABLE:
                    log.warning("response %s cannot be encoded, so another worker cannot read it", response_id)
                    await send(stream, BrokenAnswer())
            nursery.cancel_scope.cancel("all has been passed on")

    async def _show_any(self, stream: trio.SocketStream, response_id: str, caller: str) -> None:
        if (waiting := self._server_state.response_store.find_waiting(response_id, caller)) is not None:
            size = size_of(waiting.inbound.request)
            await send(stream, QueuedAnswer(await run_large(size, pack_head, waiting.inbound, waiting.options, 0)))
        elif (stored := self._find(response_id, caller)) is not None:
            await self._follow(stream, stored)
        else:
            await send(stream, NothingAnswer())

    def _find(self, response_id: str, caller: str) -> StoredResponse | None:
        store = self._server_state.response_store
        return store.find_own(response_id, caller) or store.find_lingering(response_id, caller)

    async def _follow(self, stream: trio.SocketStream, stored: StoredResponse) -> None:
        """Send a response to the other worker, as to a client: the events of a stored response are sent only once
        they are stored.
        """
        waker = WakeupEvent()
        with self._server_state.subscribe(stored.run, waker.wake) as answer:
            self._server_state.response_store.resumed(stored.id)
            head = await run_large(stored.asked_bytes, pack_head, stored.inbound, stored.options, stored.asked_bytes)
            await send(stream, FoundAnswer(head, await self._packed(stored, answer.take())))
            while answer.end is None:
                if events := answer.take():
                    await send(stream, PieceAnswer(await self._packed(stored, events)))
                else:
                    await waker.wait()

    @staticmethod
    async def _packed(stored: StoredResponse, events: Sequence[Event]) -> list[bytes]:
        size = stored.run.log.size if len(events) > EVENTS_AT_ONCE else 0
        return await run_large(size, pack_log, events)

    @staticmethod
    async def _cancel_when_gone(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        """Cancel ``scope`` when the other worker has disconnected, or has sent data, which is not expected."""
        await FrameReader(stream).next()
        scope.cancel("no follower is left in the other process")
