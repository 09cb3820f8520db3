"""The other workers of a daemon, as the server sees them. A daemon of one process has none.

`Siblings` is the interface to the other workers. `WorkerState` is the part of this worker that the others use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import trio

from llm_actors.orchestrator import RecentRequest
from llm_actors.run import Run
from llm_runtime.server.access import Access
from llm_runtime.server.engine import RequestEngine
from llm_runtime.server.issued_ids import IssuedIds
from llm_runtime.server.response_store import ResponseStore, StoredResponse
from llm_runtime.server.subscription import RunSubscription


class WorkerState(Protocol):
    """The part of a worker's state that the other workers use."""

    response_store: ResponseStore
    issued: IssuedIds
    access: Access
    engine: RequestEngine

    def adopt(self, stored: StoredResponse) -> None:
        """Keep an ended response of another worker that is to be stored."""
        ...

    async def drop_own(self, response_id: str, caller: str) -> bool:
        """Delete the caller's response with this id here and from the store. Returns whether there was one."""
        ...

    def subscribe(self, run: Run, wake: Callable[[], None]) -> RunSubscription:
        """Follow a run for a client of another worker; the result must be closed."""
        ...


class Siblings(Protocol):
    """The interface to the other workers. No method waits longer than a few seconds for a worker that does not
    respond; its part of the result is then missing. No method raises, except `run`.
    """

    async def run(self, server_state: WorkerState, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve the questions of the other workers from ``server_state``, until cancelled. The other methods work
        only while this runs. Raises `OSError` if it cannot start.
        """
        ...

    def new_response_id(self) -> str:
        """Return a new id, which says which worker has the response."""
        ...

    async def bring(self, response_id: str, caller: str) -> None:
        """Load the caller's response with this id into memory, if another worker has it. If it is still running, its
        new events follow as long as it has a follower in this worker.
        """
        ...

    async def drop(self, response_id: str, caller: str) -> bool:
        """Delete the caller's response with this id at the other workers. Returns whether one of them had it."""
        ...

    def wrong_key(self, peer: str) -> None:
        """Let the other workers count a wrong key from ``peer``, too."""
        ...

    async def issued(self, caller: str, ids: Iterable[str]) -> frozenset[str]:
        """Return the vendor ids among ``ids`` that the caller has received from another worker."""
        ...

    async def forget(self, conversation: str | None, caller: str) -> int:
        """See `RequestEngine.forget`."""
        ...

    async def metrics(self, own: bytes) -> bytes:
        """Return the metrics of all workers. ``own`` are the metrics of this worker."""
        ...

    async def statistics(self, own: object, caller: str | None) -> object:
        """Return the statistics of all workers. ``own`` are the statistics of this worker."""
        ...

    async def recent_requests(self, own: Sequence[RecentRequest], caller: str | None) -> Sequence[RecentRequest]:
        """Return the most recently ended requests of all workers. ``own`` are the requests of this worker."""
        ...

    async def tree(self, own: object) -> object:
        """Return the supervision trees of all workers, below the parent. ``own`` is the tree of this worker."""
        ...
