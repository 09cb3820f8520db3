"""The methods of a runtime, carried out by a daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import quote

import msgspec
import trio

from llm_actors.kernel import TreeNode
from llm_actors.run import Judge, Run
from llm_actors.selector import Ranking
from llm_protocol.codec.fields import bad_request
from llm_protocol.codec.json import encode_json
from llm_protocol.dialect import ModelInfo
from llm_protocol.errors import LLMClientError, UnsupportedError, error_for
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.native import Greeting
from llm_protocol.policy import Policy
from llm_protocol.requests import AUTO, AnyRequest
from llm_protocol.response import TokenCount
from llm_protocol.secret import Secret
from llm_runtime.hooks import Middleware, Observer, hooked
from llm_runtime.remote.address import Address, decode
from llm_runtime.remote.link import Link
from llm_runtime.trio_requests import TrioRequests

if TYPE_CHECKING:
    from llm_runtime.config import Config
    from llm_runtime.providers import Reloaded
    from llm_runtime.statistics import Statistics

LOG_LIMIT_BYTES: Final = 128 * 1024 * 1024
"""The largest response, in bytes, that this client keeps. The daemon has its own, usually smaller, limits."""

GRACE_SECONDS: Final = 5.0
"""The seconds to wait beyond a request's deadline, because the daemon's own error is more precise."""

NO_JUDGE: Final = "a connected runtime cannot call a judge in this program; set policy.judge to a model instead"
NO_CONFIG: Final = "a connected runtime's configuration is the daemon's: see its routes, model_list() and statistics()"


class _Ready(msgspec.Struct):
    status: str = ""
    parked: tuple[str, ...] = ()


@final
class RemoteRuntime(TrioRequests):
    """The runtime of a daemon. `connect` creates it. Its methods must be called in the call of `trio.run` in which it
    was opened.

    It has the same methods as `llm_runtime.Runtime`. Some that are synchronous there are async here: `model_list`,
    `tree`, `is_ready`, `parked_services`, `forget`. It has no `config`, and cannot call a ``judge``.
    """

    def __init__(self, address: Address, link: Link, greeting: Greeting) -> None:
        self._address = address
        self._link = link
        self._routes = {name: _policy(fields) for name, fields in greeting.routes.items()}
        self._max_bytes = greeting.max_bytes

    @property
    def config(self) -> Any:
        """Always raises `UnsupportedError`: the daemon does not show its configuration."""
        raise UnsupportedError(NO_CONFIG)

    async def reload(self, config: Config) -> Reloaded:
        """Always raises `UnsupportedError`: the daemon reloads its own configuration; see ``llm-runtime reload``."""
        del config
        raise UnsupportedError(NO_CONFIG)

    @property
    def routes(self) -> Mapping[str, Policy]:
        """The daemon's routes that this key may use, by name, as they were when the connection was made."""
        return self._routes

    async def submit(self, request: AnyRequest, *, stream: bool, judge: Judge | None = None) -> Run:
        """See `llm_runtime.Runtime.submit`."""
        if judge is not None:
            raise UnsupportedError(NO_JUDGE)
        body = _encoded(request)
        if len(body) > self._max_bytes:
            raise bad_request(
                None,
                f"the request has {len(body)} bytes; the daemon accepts at most {self._max_bytes} (server.max_body_mb)",
            )
        deadline_s = request.deadline_s or (request.policy and request.policy.deadline_s) or inf
        run = Run(request, stream=stream, log_limit_bytes=LOG_LIMIT_BYTES, deadline_s=deadline_s + GRACE_SECONDS)
        await self._link.submit(run, body)
        return run

    async def forget(self, conversation: str | None = None, *, caller: str = "") -> int:
        """See `llm_runtime.Runtime.forget`. The conversations are those of the caller to whom the key belongs."""
        query = "" if conversation is None else f"?conversation={quote(conversation, safe='')}"
        return decode(await self._ask("DELETE", f"/v1/runtime/knowledge{query}", caller), int)

    async def models(self) -> dict[str, list[str]]:
        """Return the models of each provider that this key may use, as the daemon currently knows them."""
        found: dict[str, list[str]] = {}
        for info in await self.model_list():
            provider, _, model = info.id.partition("/")
            found.setdefault(provider, []).append(model)
        return found

    async def model_list(self, caller: str = "") -> list[ModelInfo]:
        """See `llm_runtime.Runtime.model_list`."""
        return decode(await self._ask("GET", "/v1/runtime/models", caller), list[ModelInfo])

    async def explain(self, model: str = AUTO, *, caller: str = "") -> Ranking:
        """See `llm_runtime.Runtime.explain`."""
        return decode(await self._ask("GET", f"/v1/runtime/ranking?model={quote(model, safe='')}", caller), Ranking)

    async def count_tokens(self, request: AnyRequest) -> TokenCount:
        """See `llm_runtime.Runtime.count_tokens`."""
        return decode(await self._address.request("POST", "/v1/runtime/count_tokens", _encoded(request)), TokenCount)

    async def is_ready(self) -> bool:
        """See `llm_runtime.Runtime.is_ready`."""
        return (await self._readiness()).status == "ready"

    async def parked_services(self) -> Sequence[str]:
        """See `llm_runtime.Runtime.parked_services`."""
        return (await self._readiness()).parked

    async def tree(self) -> TreeNode:
        """See `llm_runtime.Runtime.tree`."""
        return decode(await self._ask("GET", "/v1/runtime/tree"), TreeNode)

    async def metrics(self) -> bytes:
        """See `llm_runtime.Runtime.metrics`."""
        return await self._ask("GET", "/metrics")

    async def statistics(self, caller: str | None = None) -> Statistics:
        """See `llm_runtime.Runtime.statistics`."""
        from llm_runtime.statistics import Statistics

        return decode(await self._ask("GET", "/v1/runtime/statistics", caller or ""), Statistics)

    async def _readiness(self) -> _Ready:
        return decode(await self._address.request("GET", "/readyz", accept=(200, 503)), _Ready)

    async def _ask(self, method: str, path: str, caller: str = "") -> bytes:
        if caller:
            raise UnsupportedError("a connected runtime can only act for the caller whose key it has; omit caller")
        return await self._address.request(method, path)


def _encoded(request: AnyRequest) -> bytes:
    try:
        return encode_json(request)
    except (TypeError, ValueError, OverflowError) as exc:
        raise bad_request(None, f"the request cannot be sent to a daemon: {exc}") from None


def _policy(fields: dict[str, Any]) -> Policy:
    try:
        return msgspec.convert(fields, Policy)
    except msgspec.ValidationError:
        return Policy()  # a field of a newer daemon, which understands it


@asynccontextmanager
async def connect(
    url: str,
    *,
    key: str | Secret | None = None,
    ca_file: str | None = None,
    observers: Sequence[Observer] = (),
    middleware: Sequence[Middleware] = (),
) -> AsyncIterator[RemoteRuntime]:
    """Use the runtime of a daemon (``llm-runtime serve``) around a block of a Trio program.

    ``url`` is its address, such as ``"http://127.0.0.1:8080"``; ``key`` is one of its keys, if it has any; ``ca_file``
    is a PEM file with the certificate authority, if that is not a public one. Raises `LLMClientError` if the daemon
    cannot be reached or refuses the key, and `ValueError` for an invalid address.

    Requests go over WebSockets. If one breaks, responses are resumed on another; the daemon keeps them for 10 s.
    ``observers`` and ``middleware`` are called in this program; observers receive attempts when the run has ended.
    Leaving the block cancels the runs that have not ended. An exception in the block propagates unchanged.
    """
    address = Address(url, key, ca_file)
    error: BaseException | None = None
    try:
        greeting = await greet(address)
        async with trio.open_nursery() as nursery:
            link = Link(nursery, address, greeting.responses)
            try:
                async with hooked(observers, middleware, ends_attempts=True) as hooks:
                    runtime = RemoteRuntime(address, link, greeting)
                    runtime._hooks = hooks
                    yield runtime
            except trio.Cancelled:
                raise
            except BaseException as exc:  # raised below, where no nursery wraps it
                error = exc
            finally:
                await link.close()
                nursery.cancel_scope.cancel("the connection is closed")
    finally:
        with trio.CancelScope(shield=True):
            await address.aclose()
    if error is not None:
        raise error


async def greet(address: Address) -> Greeting:
    """Return the daemon's greeting. Raises `LLMClientError`."""
    try:
        data = await address.request("GET", "/v1/runtime")
        msgspec.json.decode(data)
    except msgspec.DecodeError:
        pass
    except LLMClientError as exc:
        if exc.failure.upstream_status != 404:
            raise
    else:
        return decode(data, Greeting)
    raise error_for(Failure(kind=FailureKind.PROTOCOL, message=f"{address} is not an llm-runtime daemon"))
