"""The questions of a worker to its siblings."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, TypeVar, final

import msgspec
import trio

from llm_actors.kernel import TreeNode
from llm_actors.kernel.errors import exception_site
from llm_actors.orchestrator import RecentRequest
from llm_actors.threads import run_large
from llm_protocol.requests import new_response_id
from llm_runtime.server.packing import PackedRequest, unpack_head
from llm_runtime.server.response_store import WaitingResponse
from llm_runtime.server.siblings import WorkerState
from llm_runtime.statistics import Statistics
from llm_runtime.workers import views
from llm_runtime.workers.answering import Answering, listen_at
from llm_runtime.workers.messages import (
    ANSWERS,
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
    QueuedAnswer,
    SeenAnswer,
    WorkerAnswer,
    WorkerQuestion,
    WorkerView,
    WrongKeyNotice,
    send,
)
from llm_runtime.workers.mirror import Mirror, unpack_found
from llm_runtime.workers.place import WorkerPlace, socket_path

ANSWER_SECONDS: Final = 3.0
"""Seconds that workers may take to answer a question."""

FIRST_SECONDS: Final = 0.5
"""Seconds for which only one worker is asked: the one whose number is in the response id, if there is one."""

QUEUED_SECONDS: Final = 0.2
"""Seconds for which a response of another worker is assumed to still wait for its turn."""

WRONG_KEYS_AT_ONCE: Final = 64
"""The most wrong keys that are being reported to the siblings at the same time. Further ones are not reported."""

_ID_START: Final = len("resp_")

A = TypeVar("A", CountAnswer, IdsAnswer)

log = logging.getLogger(__name__)


@final
class WorkerSiblings:
    """See `Siblings`. ``place``: the number, folder and inherited descriptors of this worker."""

    def __init__(self, place: WorkerPlace) -> None:
        self._folder = place.folder
        self._number = place.number
        self._others = tuple(each for each in range(1, place.count + 1) if each != place.number)
        self._server_state: WorkerState | None = None
        self._nursery: trio.Nursery | None = None
        self._wrong_keys = 0

    async def run(self, server_state: WorkerState, *, task_status: trio.TaskStatus[None]) -> None:
        """See `Siblings`."""
        listener = listen_at(socket_path(self._folder, self._number))
        try:
            async with trio.open_nursery() as nursery:
                self._server_state, self._nursery = server_state, nursery
                task_status.started()
                await trio.serve_listeners(Answering(server_state).answer, [listener], handler_nursery=nursery)
        finally:
            self._nursery = None
            with suppress(OSError):
                os.unlink(socket_path(self._folder, self._number))

    def new_response_id(self) -> str:
        """See `Siblings`: the first two digits are the number of the worker."""
        made = new_response_id()
        return f"{made[:_ID_START]}{self._number:02x}{made[_ID_START + 2 :]}"

    def _likely(self, response_id: str) -> list[int]:
        """Return the numbers of all other workers, first the number that is in the id. Not every id contains one:
        clients of the native protocol make their own ids.
        """
        named = response_id[_ID_START : _ID_START + 2]
        return sorted(self._others, key=lambda each: f"{each:02x}" != named)

    # -- responses ---------------------------------------------------------------------------------------------------

    async def bring(self, response_id: str, caller: str) -> None:
        """See `Siblings.bring`. Asks the worker whose number is in the response id first. Asks the others when that
        worker has answered, or after `FIRST_SECONDS`. All of this takes at most `ANSWER_SECONDS`.
        """
        answered = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + ANSWER_SECONDS

            async def ask(number: int) -> None:
                await self._bring_from(number, response_id, caller)
                answered.set()
                if self._knows(response_id):
                    nursery.cancel_scope.cancel("the response was found")

            first, *others = self._likely(response_id)
            nursery.start_soon(ask, first)
            with trio.move_on_after(FIRST_SECONDS):
                await answered.wait()
            for number in others:
                nursery.start_soon(ask, number)

    def _knows(self, response_id: str) -> bool:
        """Whether no worker need be asked: this worker has the response in memory, or ends."""
        return self._server_state is None or self._server_state.response_store.knows(response_id)

    async def _bring_from(self, number: int, response_id: str, caller: str) -> None:
        """Load the response into memory if worker ``number`` has it."""
        stream = await self._connect(number)
        if stream is None:
            return
        is_kept = False
        try:
            is_kept = await self._take(number, stream, response_id, caller)
        except (msgspec.MsgspecError, AssertionError) as exc:
            log.error("a response of worker %d cannot be read: %s", number, exception_site(exc))  # noqa: TRY400
        finally:
            if not is_kept:
                await trio.aclose_forcefully(stream)

    async def _take(self, number: int, stream: trio.SocketStream, response_id: str, caller: str) -> bool:
        """Take a response from another worker. Returns whether ``stream`` is still needed. Raises
        `msgspec.MsgspecError` or `AssertionError` for a response that cannot be read.
        """
        frames = FrameReader(stream)
        answer = await self._answer(stream, frames, FollowQuestion(response_id, caller))
        if isinstance(answer, QueuedAnswer):
            asked = await run_large(len(answer.head), unpack_head, answer.head)
            self._wait(number, asked, response_id, caller)
        if not isinstance(answer, FoundAnswer):
            return False
        size = len(answer.head) + sum(map(len, answer.events))
        stored = await run_large(size, unpack_found, response_id, answer, trio.current_time())
        server_state = self._server_state
        if server_state is None or self._nursery is None or server_state.response_store.knows(response_id):
            return False
        server_state.issued.watch(stored.run)
        mirror = Mirror(stored, frames)
        if mirror.is_whole and stored.outlives_its_end:
            server_state.adopt(stored)
            return False
        server_state.response_store.mirror(stored)
        self._nursery.start_soon(self._keep, number, mirror, stream, server_state)
        return True

    async def _keep(self, number: int, mirror: Mirror, stream: trio.SocketStream, server_state: WorkerState) -> None:
        """Keep a mirror in memory while it is needed."""
        stored, response_store = mirror.stored, server_state.response_store
        try:
            await mirror.follow()
            if mirror.is_cancelled:
                await self._ask(number, CancelQuestion(stored.id, stored.caller))
                await mirror.follow_cancelled()
        except Exception as exc:
            log.error("a response of another worker cannot be followed: %s", exception_site(exc))  # noqa: TRY400
            mirror.give_up("this response cannot be read from its worker; the response is incomplete")
        finally:
            mirror.end()
            response_store.unmirror(stored)
            if (
                not (mirror.is_given_up or stored.is_gone or response_store.knows(stored.id))
                and stored.outlives_its_end
            ):
                server_state.adopt(stored)
            await trio.aclose_forcefully(stream)

    def _wait(self, number: int, asked: PackedRequest, response_id: str, caller: str) -> None:
        """Keep a response in memory for `QUEUED_SECONDS`, because it waits for its turn at another worker."""
        nursery, server_state = self._nursery, self._server_state
        if server_state is None or nursery is None or server_state.response_store.knows(response_id):
            return

        def withdraw() -> None:
            nursery.start_soon(self._ask, number, CancelQuestion(response_id, caller))

        server_state.response_store.wait(WaitingResponse(response_id, asked.inbound, asked.options, withdraw))
        nursery.start_soon(self._stop_waiting, response_id, server_state)

    @staticmethod
    async def _stop_waiting(response_id: str, server_state: WorkerState) -> None:
        await trio.sleep(QUEUED_SECONDS)
        server_state.response_store.stop_waiting(response_id)

    async def drop(self, response_id: str, caller: str) -> bool:
        """See `Siblings`."""
        return any(each.count for each in await self._ask_all(DropQuestion(response_id, caller), CountAnswer))

    # -- what all know together --------------------------------------------------------------------------------------

    def wrong_key(self, peer: str) -> None:
        """See `Siblings`."""
        if self._nursery is not None and self._wrong_keys < WRONG_KEYS_AT_ONCE:
            self._wrong_keys += 1
            self._nursery.start_soon(self._tell_wrong_key, peer)

    async def _tell_wrong_key(self, peer: str) -> None:
        try:
            await self._ask_all(WrongKeyNotice(peer), CountAnswer)
        finally:
            self._wrong_keys -= 1

    async def issued(self, caller: str, ids: Iterable[str]) -> frozenset[str]:
        """See `Siblings`."""
        found = await self._ask_all(IssuedQuestion(caller, list(ids)), IdsAnswer)
        return frozenset(one for each in found for one in each.ids)

    async def forget(self, conversation: str | None, caller: str) -> int:
        """See `Siblings`."""
        return sum(each.count for each in await self._ask_all(ForgetQuestion(conversation, caller), CountAnswer))

    async def metrics(self, own: bytes) -> bytes:
        """See `Siblings`."""
        return await run_large(len(own), views.metrics, {self._number: own, **await self._look(WorkerView.METRICS)})

    async def statistics(self, own: object, caller: str | None) -> object:
        """See `Siblings`."""
        assert isinstance(own, Statistics), "the statistics of a worker must be of its runtime"
        found = await self._look(WorkerView.STATISTICS, caller)
        others = {number: msgspec.json.decode(body, type=Statistics) for number, body in found.items()}
        return views.statistics({self._number: own, **others})

    async def recent_requests(self, own: Sequence[RecentRequest], caller: str | None) -> Sequence[RecentRequest]:
        """See `Siblings`."""
        found = await self._look(WorkerView.RECENT, caller)
        others = [msgspec.json.decode(body, type=list[RecentRequest]) for body in found.values()]
        return views.recent_requests([own, *others])

    async def tree(self, own: object) -> object:
        """See `Siblings`."""
        assert isinstance(own, TreeNode), "the tree of a worker must be of its runtime"
        found = await self._look(WorkerView.TREE)
        return views.tree({self._number: own, **{n: msgspec.json.decode(b, type=TreeNode) for n, b in found.items()}})

    # -- asking ------------------------------------------------------------------------------------------------------

    async def _look(self, view: WorkerView, caller: str | None = None) -> dict[int, bytes]:
        """Return the views of the other workers, each under the number of its worker. Workers that do not respond are
        left out.
        """
        found: dict[int, bytes] = {}

        async def look(number: int) -> None:
            if isinstance(answer := await self._ask(number, LookQuestion(view, caller)), SeenAnswer):
                found[number] = answer.body

        async with trio.open_nursery() as nursery:
            for number in self._others:
                nursery.start_soon(look, number)
        return found

    async def _ask_all(self, question: WorkerQuestion, kind: type[A]) -> list[A]:
        found: list[A] = []

        async def ask(number: int) -> None:
            if isinstance(answer := await self._ask(number, question), kind):
                found.append(answer)

        async with trio.open_nursery() as nursery:
            for number in self._others:
                nursery.start_soon(ask, number)
        return found

    async def _ask(self, number: int, question: WorkerQuestion) -> WorkerAnswer | None:
        """Return the answer of one worker; ``None`` if there is none within `ANSWER_SECONDS`."""
        with trio.move_on_after(ANSWER_SECONDS):
            stream = await self._connect(number)
            if stream is None:
                return None
            try:
                return await self._answer(stream, FrameReader(stream), question)
            except msgspec.MsgspecError as exc:
                log.error("a message of worker %d cannot be read: %s", number, exception_site(exc))  # noqa: TRY400
            finally:
                await trio.aclose_forcefully(stream)
        return None

    @staticmethod
    async def _answer(stream: trio.SocketStream, frames: FrameReader, question: WorkerQuestion) -> WorkerAnswer | None:
        """Return the answer; ``None`` if the worker has disconnected. Raises `msgspec.MsgspecError` for an answer
        that cannot be read.
        """
        with suppress(trio.BrokenResourceError):
            await send(stream, question)
            frame = await frames.next()
            return None if frame is None else ANSWERS.decode(frame)
        return None

    async def _connect(self, number: int) -> trio.SocketStream | None:
        """Return a connection to a worker; ``None`` if it is not running."""
        with suppress(OSError):
            return await trio.open_unix_socket(socket_path(self._folder, number))
        return None
