"""The other workers of a daemon that has several, as the server sees them. A daemon of one process has none.

`Siblings` is what a worker asks of the others, `WorkerState` what the others may ask of it.
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
    """One worker's part of what the daemon knows."""

    response_store: ResponseStore
    issued: IssuedIds
    access: Access
    engine: RequestEngine

    def adopt(self, stored: StoredResponse) -> None:
        """Keep a response of another worker that has ended and is to be stored."""
        ...

    async def drop_own(self, response_id: str, caller: str) -> bool:
        """Delete the caller's response of that id here and from the store. Returns whether there was one."""
        ...

    def subscribe(self, run: Run, wake: Callable[[], None]) -> RunSubscription:
        """Follow a run for a client of another worker; the result must be closed."""
        ...


class Siblings(Protocol):
    """No method waits longer than a few seconds for a worker that does not answer; what it would have said is left
    out. None raises.
    """

    async def run(self, server_state: WorkerState, *, task_status: trio.TaskStatus[None]) -> None:
        """Answer the others out of ``server_state``, until cancelled. The methods below need it to run. Raises
        `OSError` if it cannot start.
        """
        ...

    def new_response_id(self) -> str:
        """An id that says which worker has the response."""
        ...

    async def bring(self, response_id: str, caller: str) -> None:
        """Have the caller's response of that id in memory, if another worker has it; and as long as it is made and
        followed here, more of it as it comes.
        """
        ...

    async def drop(self, response_id: str, caller: str) -> bool:
        """Delete the caller's response of that id from the others. Returns whether one of them had it."""
        ...

    def wrong_key(self, peer: str) -> None:
        """Have the others count a wrong key from ``peer``, too."""
        ...

    async def issued(self, caller: str, ids: Iterable[str]) -> frozenset[str]:
        """Those of the vendor ids that the caller has received from another worker."""
        ...

    async def forget(self, conversation: str | None, caller: str) -> int:
        """See `RequestEngine.forget`."""
        ...

    async def metrics(self, own: bytes) -> bytes:
        """Return the metrics of all workers; ``own`` are those of this one."""
        ...

    async def statistics(self, own: object, caller: str | None) -> object:
        """Return the statistics of all workers; ``own`` are those of this one."""
        ...

    async def recent_requests(self, own: Sequence[RecentRequest], caller: str | None) -> Sequence[RecentRequest]:
        """Return the requests that ended last at all workers; ``own`` are those of this one."""
        ...

    async def tree(self, own: object) -> object:
        """The supervision trees, below the process that has them all."""
        ...
