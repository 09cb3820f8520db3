"""The provider actor: owns one provider's connections, and makes each request in a separate task.

A failure of the vendor is a result (`AttemptResult`). A bug in the runtime is a crash: it fails one request. Frequent
crashes end the actor, and its supervisor restarts it with new connections.
"""

from __future__ import annotations

from typing import assert_never, final

import trio

from llm_actors.kernel import Delivery, Inbox, serve_concurrently
from llm_actors.provider.call import ERROR_BODY_BYTES, ProviderCall
from llm_actors.provider.failures import failure_of
from llm_actors.provider.messages import CountTokens, Generate, ListModels, ProviderMessage
from llm_actors.provider.passthrough import PassthroughCall, PassthroughRequest
from llm_actors.provider.sanitize import Oddities, clean_failure, clean_models
from llm_actors.provider.spec import ProviderSpec
from llm_actors.threads import run_large
from llm_actors.transport import Dial, Transport, TransportError
from llm_protocol.dialect import ModelInfo, TokenCounter, WireRequest, WireResponse
from llm_protocol.errors import LLMClientError, error_for
from llm_protocol.requests import AnyRequest

MODEL_PAGES = 100
"""The most pages that a model list may have."""

MODEL_PAGE_BYTES = 16 * 1024 * 1024
"""The most bytes of a response that is a page of a model list or a token count."""

CLOSE_SECONDS = 2.0
"""Seconds that closing the connections may take."""


@final
class ProviderActor:
    """Handles the messages for one provider. ``dial``: opens connections in place of the network, for tests."""

    def __init__(self, spec: ProviderSpec, *, dial: Dial | None = None) -> None:
        self._spec = spec
        self._oddities = Oddities(spec.name)
        idle = spec.max_concurrency
        self._transport = Transport(
            trust=spec.trust, dial=dial, proxy=spec.proxy, http2=spec.http2, max_idle_per_origin=idle
        )

    async def run(self, inbox: Inbox[ProviderMessage], *, task_status: trio.TaskStatus[None]) -> None:
        """Handle messages until asked to stop, then finish the requests in progress. Cancelling closes all connections
        at once.
        """
        try:
            task_status.started()
            await serve_concurrently(inbox, self._handle, slots=self._spec.max_concurrency, own_scope=True)
        finally:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await self._transport.aclose()

    async def _handle(self, delivery: Delivery[ProviderMessage]) -> None:
        match delivery.message:
            case Generate() as message:
                timeouts = message.timeouts or self._spec.timeouts
                attempt = ProviderCall(
                    self._spec,
                    self._transport,
                    message.sink,
                    timeouts,
                    delivery.scope(),
                    self._oddities,
                    message.on_sent,
                )
                outcome = await attempt.run(message.request, stream=message.stream, prepared=message.prepared)
                if not delivery.abandoned:
                    delivery.reply(message, outcome)
            case ListModels() as message:
                with delivery.scope():  # the caller has the same deadline
                    try:
                        delivery.reply(message, await self._models())
                    except LLMClientError as exc:
                        delivery.fail(exc)
            case CountTokens() as message:
                with delivery.scope():
                    try:
                        delivery.reply(message, await self._count(message.request))
                    except LLMClientError as exc:
                        delivery.fail(exc)
            case PassthroughRequest() as message:
                passed = await PassthroughCall(self._spec, self._transport, message, delivery.scope()).run()
                if not delivery.abandoned:
                    delivery.reply(message, passed)
            case _ as never:
                assert_never(never)

    async def _models(self) -> tuple[ModelInfo, ...]:
        if self._spec.models:
            return tuple(ModelInfo(id=model) for model in self._spec.models)
        found: list[ModelInfo] = []
        page: str | None = None
        for _ in range(MODEL_PAGES):
            body = await self._fetch(self._spec.dialect.models_request(page))
            models, page = await run_large(len(body), self._spec.dialect.decode_models, body)
            found.extend(clean_models(models, self._spec.secret))
            if page is None:
                break
        return tuple(found)

    async def _count(self, request: AnyRequest) -> int | None:
        dialect = self._spec.wires.counting(request)
        if not isinstance(dialect, TokenCounter):
            return None
        return dialect.decode_count(await self._fetch(dialect.count_request(request), model=request.model))

    async def _fetch(self, wire: WireRequest, *, model: str = "") -> bytes:
        """Send a request and return the body of a 200 response. Raises `LLMClientError` for any other response."""
        spec = self._spec
        if spec.renewer is not None:
            await spec.renewer.refresh()
        used = spec.secret
        answer = await self._send(wire)
        if answer.status == 401 and spec.renewer is not None and await spec.renewer.renew(used):
            answer = await self._send(wire)
        if answer.status != 200:
            failure = spec.dialect.decode_error(answer)
            raise error_for(clean_failure(failure, spec.secret).at(provider=spec.name, model=model, partial=False))
        return answer.body

    async def _send(self, wire: WireRequest) -> WireResponse:
        spec = self._spec
        try:
            request = spec.http_request(wire)
            async with self._transport.send(request, connect_timeout=spec.timeouts.connect) as response:
                if response.status == 200:
                    body = await response.read(MODEL_PAGE_BYTES)
                else:
                    body = await response.read(ERROR_BODY_BYTES, cut=True)
                return WireResponse(response.status, tuple(response.headers.items()), body)
        except TransportError as exc:
            raise error_for(failure_of(exc, spec.name)) from exc
