"""What all connections share: the engine, the access rules, the connections, and the responses in progress."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import Protocol, TypeAlias, final

import trio

from llm_actors.kernel.errors import exception_site
from llm_actors.run import Run
from llm_actors.shared_responses import SharedResponses
from llm_protocol.codec.json import LIMITS
from llm_protocol.errors import InternalError, LLMClientError, ShuttingDownError
from llm_protocol.passthrough import PassthroughRule, rules_of
from llm_protocol.requests import AnyRequest, new_response_id
from llm_runtime.config import Config, Key, Server
from llm_runtime.server.access import Access, AdmittedConnection, ConnectionAdmission
from llm_runtime.server.bodies import BodyBudget
from llm_runtime.server.engine import RequestEngine
from llm_runtime.server.http_error import HttpError, store_unavailable
from llm_runtime.server.issued_ids import IssuedIds
from llm_runtime.server.limits import CLOSE_SECONDS, LINGERING_CONNECTIONS, PARTING_SECONDS
from llm_runtime.server.persistence import ResponsePersistence
from llm_runtime.server.receiver import Receiver, Ticker, Ticking
from llm_runtime.server.replicas import Replicas
from llm_runtime.server.response_store import ResponseStore, StoredResponse
from llm_runtime.server.siblings import Siblings
from llm_runtime.server.socket import Socket
from llm_runtime.server.subscription import RunSubscription, WakeupEvent
from llm_runtime.server.tls import TlsContext

log = logging.getLogger("llm_runtime.server")


Reload: TypeAlias = Callable[[], Awaitable[object]]
"""Reads the configuration again and returns the changes, as a value that msgspec can encode. Raises `LLMClientError`.
"""


class OpenConnection(Ticking, Protocol):
    """A connection, HTTP or WebSocket."""

    def drain(self) -> None:
        """Accept no new requests, and end after the active responses, or now if there are none."""
        ...


@final
class ServerState:
    """The state of one server. It survives a crash of the listener, but not of the supervisor above it."""

    def __init__(
        self,
        config: Server,
        keys: Mapping[str, Key],
        engine: RequestEngine,
        reload: Reload | None = None,
        file: str | None = None,
        siblings: Siblings | None = None,
        shared: SharedResponses | None = None,
    ) -> None:
        self.config = config
        self.engine = engine
        self.reload = reload
        """Reloads the configuration; ``None`` if that is not possible."""
        self.file = file
        """The file that the configuration is read from; ``None``: the environment."""
        engine.on_reload(self.take_over)
        self.siblings = siblings
        """The other workers; ``None`` where the daemon is one process."""
        self.new_response_id = new_response_id if siblings is None else siblings.new_response_id
        self.access = Access(config, keys, None if siblings is None else siblings.wrong_key)
        self.json_limits = LIMITS._replace(values=config.max_json_values)
        self.response_store = ResponseStore(config)
        self.issued = IssuedIds(keys)
        self.replicas = None if shared is None else Replicas(shared, self.response_store, self.issued.watch)
        """The other replicas, through Redis; ``None`` if stored responses are not in Redis."""
        if self.replicas is not None:
            self.issued.on_new = self.replicas.issue
        self.persistence = self.replicas or ResponsePersistence(
            lambda: engine.store, self.response_store, self.issued.watch
        )
        self.bodies = BodyBudget(config.max_body_total_bytes)
        self.admission: ConnectionAdmission[AdmittedConnection] = ConnectionAdmission(
            config, has_keys=bool(keys), proxies=config.trusted_proxies
        )
        self.receiver = Receiver()
        self.ticker = Ticker()
        self.ticker.add(self)
        self.tls = TlsContext(config.tls) if config.tls is not None else None
        self.leaving = False
        """Whether the server is about to close. Then `/readyz` says so, and requests are still accepted."""
        self.draining = False
        self.passthrough = _passthrough(keys)
        self._lingering = 0
        self._busy = 0
        self._parting = inf
        self._subscriptions: set[RunSubscription] = set()
        self._connections: dict[OpenConnection, None] = {}
        self._changed = WakeupEvent()

    def take_over(self, config: Config) -> None:
        """Apply a new configuration: its keys, and the origins and hosts of its server."""
        self.access.change(config.server, config.keys)
        self.issued.change(config.keys)
        self.passthrough = _passthrough(config.keys)
        self.admission.has_keys = bool(config.keys)

    # -- connections -------------------------------------------------------------------------------------------------

    def join(self, connection: OpenConnection) -> None:
        """Register a new connection."""
        self._connections[connection] = None
        self.ticker.add(connection)
        if self.draining:
            connection.drain()

    def leave(self, connection: OpenConnection) -> None:
        """Remove a connection that has ended."""
        self._connections.pop(connection, None)
        self.ticker.remove(connection)
        self._changed.wake()

    def parting(self) -> trio.CancelScope:
        """Return a cancel scope for sending the last bytes on a connection that is being cancelled. All connections
        together have `PARTING_SECONDS`, because the process is about to exit.
        """
        self._parting = min(self._parting, trio.current_time() + PARTING_SECONDS)
        return trio.CancelScope(shield=True, deadline=self._parting)

    async def close_gently(self, socket: Socket) -> None:
        """Close the socket gently (`Socket.close_gently`), unless too many connections are doing so already: then
        close it at once.
        """
        if self._lingering >= LINGERING_CONNECTIONS:
            socket.close()
            return
        self._lingering += 1
        try:
            await socket.close_gently()
        finally:
            self._lingering -= 1

    # -- responses ---------------------------------------------------------------------------------------------------

    async def start_run(
        self,
        request: AnyRequest,
        *,
        stream: bool,
        background: bool = False,
        since: float | None = None,
        response_id: str | None = None,
    ) -> Run:
        """Start a request through the engine; see `RequestEngine.submit`. The deadline counts from ``since``, or from
        now. Raises `LLMClientError`, and `HttpError` as `check_issued` does. An unexpected exception of the engine is
        raised as `InternalError`, an `LLMClientError`: a bug ends one request, not the connection and its other
        requests.
        """
        if self.draining:
            raise ShuttingDownError("The runtime is shutting down.")
        try:
            self.begin()  # so that a drain waits for the request even before its run has a follower
            try:
                await self.check_issued(request)
                run = await self.engine.submit(
                    request, stream=stream, background=background, since=since, response_id=response_id
                )
            finally:
                self.finish()
        except (LLMClientError, HttpError):
            raise
        except Exception as exc:
            # The exception's text may contain anything, so only its place is logged.
            log.error("request %s was not accepted: %s", request.request_id, exception_site(exc))  # noqa: TRY400
            raise InternalError("internal error: the request was not accepted; see the log") from exc
        if request.caller:
            self.issued.watch(run)
        return run

    async def check_issued(self, request: AnyRequest) -> None:
        """Raise `BadRequestError` for a vendor id in ``request`` that its caller has not received from any worker or
        replica, and `HttpError` while Redis, which knows the ids of other replicas, is unreachable.
        """
        if not request.caller:  # without keys, all clients are one caller
            return
        if self.siblings is not None and (unknown := self.issued.unissued(request)):
            self.issued.note(request.caller, await self.siblings.issued(request.caller, unknown))
        if self.replicas is not None and (unknown := self.issued.unissued(request)):
            self.issued.note(request.caller, await self.replicas.issued(request.caller, unknown))
        self.issued.check(request)

    async def bring(self, response_id: str | None, caller: str) -> None:
        """Load the caller's response with this id into memory, if another worker, the store's file or another replica
        has it. Does nothing if none has it. Raises `HttpError` if a process outside this daemon and its replicas is
        still producing it, and if no worker has it while the file cannot be read or Redis is unreachable.
        """
        if self.replicas is not None:
            await self._bring_from_replicas(self.replicas, response_id, caller)
            return
        if self.siblings is not None and response_id is not None and not self.response_store.knows(response_id):
            await self.siblings.bring(response_id, caller)
        await self.persistence.bring(response_id, caller)

    async def _bring_from_replicas(self, replicas: Replicas, response_id: str | None, caller: str) -> None:
        """Load a response from other replicas. If Redis is unreachable, a response that is not to be stored can still
        be at a worker.
        """
        refused: HttpError | None = None
        try:
            await replicas.bring(response_id, caller)
        except HttpError as exc:
            refused = exc
        if self.siblings is not None and response_id is not None and not self.response_store.knows(response_id):
            if await replicas.is_deleted(response_id):
                return  # a worker may not know of the deletion yet
            await self.siblings.bring(response_id, caller)
            if self.response_store.knows(response_id):
                return
        if refused is not None:
            raise refused

    def adopt(self, stored: StoredResponse) -> None:
        """Keep an ended response of another worker that is to be stored. Other replicas may delete it."""
        stored.is_shared, stored.is_in_file = self.replicas is not None, True
        self.response_store.adopt(stored, trio.current_time())

    async def drop(self, response_id: str, caller: str) -> bool:
        """Delete the caller's response with this id from memory, the file and Redis, and from other workers. Returns
        whether there was one. Raises `HttpError` if the store or Redis cannot be changed now.
        """
        elsewhere = self.siblings is not None and await self.siblings.drop(response_id, caller)
        return await self.drop_own(response_id, caller) or elsewhere

    async def drop_own(self, response_id: str, caller: str) -> bool:
        """Delete the caller's response with this id from the memory of this worker, the file and Redis. Returns whether
        there was one.
        """
        if (stored := self.response_store.find_to_delete(response_id, caller)) is None:
            return False
        if self.replicas is not None and stored.outlives_its_end:
            await self.replicas.forget(response_id, caller)
        if isinstance(self.persistence, ResponsePersistence) and not await self.persistence.forget(stored):
            raise store_unavailable("The store cannot be written now, so the response was not deleted. Try again.")
        stored.run.cancel("the client deleted the response")
        self.response_store.drop(stored)
        return True

    def begin(self) -> None:
        """Note that a request is being handled. A drain waits for the call of `finish`."""
        self._busy += 1

    def finish(self) -> None:
        """Note that the request is no longer being handled."""
        self._busy -= 1
        self._changed.wake()

    def subscribe(self, run: Run, wake: Callable[[], None], *, whole: bool = False) -> RunSubscription:
        """Follow a run for a client; the result must be closed. See `RunSubscription`."""
        progress = self.persistence.live.get(run.response_id)
        subscription = RunSubscription(run, wake, self._remove_subscription, whole=whole, progress=progress)
        self._subscriptions.add(subscription)
        return subscription

    def _remove_subscription(self, subscription: RunSubscription) -> None:
        self._subscriptions.discard(subscription)
        self._changed.wake()

    def tick(self, now: float) -> None:
        """Clean up the response store, and while draining check whether the background runs have ended."""
        self.response_store.tick(now)
        self._changed.wake()

    async def drain(self, seconds: float) -> None:
        """Accept nothing new, let responses in progress end within ``seconds``, end the rest as failed, and give
        every connection `CLOSE_SECONDS` to close.
        """
        self.draining = True
        for connection in tuple(self._connections):
            connection.drain()
        with trio.move_on_after(seconds):
            while self._subscriptions or self._busy or self.response_store.background:
                await self._changed.wait()
        for subscription in tuple(self._subscriptions):
            subscription.shut()
        with trio.move_on_after(CLOSE_SECONDS):
            while self._connections:
                await self._changed.wait()


def _passthrough(keys: Mapping[str, Key]) -> dict[str, tuple[PassthroughRule, ...]]:
    """Return the passthrough rules of each caller."""
    return rules_of({name: key.passthrough for name, key in keys.items()})
