"""The endpoints without state: one request, one response."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import msgspec

from llm_protocol.dialect import Inbound, WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.requests import AUTO, AnyRequest
from llm_runtime.config import ConfigError
from llm_runtime.server.bodies import read_body
from llm_runtime.server.choices import respond_with_choices
from llm_runtime.server.client_wire import openai
from llm_runtime.server.content_encoding import plain_body
from llm_runtime.server.engine import admitted, with_headers
from llm_runtime.server.handshake import check_handshake
from llm_runtime.server.http_error import JSON, HttpError, not_found
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.run_response import encode_failure, respond

METRICS = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format."""


async def ask(exchange: RequestContext) -> None:
    """Requests for the model's work, in the wire that the client speaks."""
    spoken = exchange.wire.dialect()
    exchange.end_with_client()
    inbound: Inbound | None = None
    try:
        target = exchange.target
        body = await plain_body(exchange)
        decoded = await read_body(exchange.service.json_limits, body, lambda text: spoken.decode_request(target, text))
        del body  # the body may be large, and the response take long
        secret = exchange.service.access.secret_of(exchange.caller)
        decoded = with_headers(decoded, exchange.request.headers, exchange.caller, secret)
        inbound = admitted(exchange.caller, decoded)
        if inbound.choices:
            await respond_with_choices(exchange, spoken, inbound._replace(request=_tellable(inbound.request)))
            return
        run = await exchange.service.start_run(_tellable(inbound.request), stream=inbound.stream)
    except LLMClientError as exc:
        await exchange.reply(encode_failure(spoken, exc.failure, inbound))
    else:
        exchange.request_id = inbound.request.request_id
        await respond(exchange, spoken, inbound, run)


def _tellable(request: AnyRequest) -> AnyRequest:
    """The request without the option to be told of a restart, which only the Responses wire can express."""
    policy = request.policy
    if policy is None or policy.on_broken_stream != "restart":
        return request
    return msgspec.structs.replace(request, policy=msgspec.structs.replace(policy, on_broken_stream="error"))


async def websocket(exchange: RequestContext) -> None:
    """Start a WebSocket session."""
    service = exchange.service
    check_handshake(exchange.request, enabled=service.config.websocket, draining=service.draining)
    exchange.upgrade()


async def tree(exchange: RequestContext) -> None:
    """The live supervision tree."""
    body = msgspec.json.encode(exchange.service.engine.tree(), enc_hook=str)
    await exchange.reply(WireResponse(200, (JSON,), body))


async def explain(exchange: RequestContext) -> None:
    """The providers that would be tried for a model, in order, with the reasons."""
    query = parse_qs(urlsplit(exchange.request.target).query)
    try:
        model = query.get("model", [AUTO])[0]
        ranking = await exchange.service.engine.explain(model, caller=exchange.caller)
    except LLMClientError as exc:
        await exchange.reply(encode_failure(openai(), exc.failure))
        return
    body = msgspec.json.encode({**ranking.record(), "lines": ranking.lines()})
    await exchange.reply(WireResponse(200, (JSON,), body))


async def metrics(exchange: RequestContext) -> None:
    """Counters and gauges for Prometheus."""
    body = await exchange.service.engine.metrics()
    await exchange.reply(WireResponse(200, (("content-type", METRICS),), body))


async def statistics(exchange: RequestContext) -> None:
    """The same as JSON, grouped by provider and caller; the dashboard reads it. If keys are configured, a caller
    without ``admin`` gets its own usage only.
    """
    caller = None if exchange.service.access.sees_all(exchange.caller) else exchange.caller
    body = msgspec.json.encode(await exchange.service.engine.statistics(caller))
    await exchange.reply(WireResponse(200, (JSON, ("cache-control", "no-store")), body))


async def recent_requests(exchange: RequestContext) -> None:
    """The requests that ended last. If keys are configured, a caller without ``admin`` gets its own only."""
    caller = None if exchange.service.access.sees_all(exchange.caller) else exchange.caller
    body = msgspec.json.encode({"requests": exchange.service.engine.recent_requests(caller)})
    await exchange.reply(WireResponse(200, (JSON, ("cache-control", "no-store")), body))


async def reload(exchange: RequestContext) -> None:
    """Read the configuration again, and say what changed. What is wrong with it is a 400, and the old one holds."""
    if exchange.service.reload is None:
        raise not_found("configuration to read again")
    try:
        changed = await exchange.service.reload()
    except ConfigError as exc:
        raise HttpError(400, "invalid_configuration", "; ".join(map(str, exc.all))) from exc
    except LLMClientError as exc:
        raise HttpError(exc.failure.rule.status, exc.failure.rule.code, str(exc)) from exc
    await exchange.reply(WireResponse(200, (JSON,), msgspec.json.encode(changed)))


async def dashboard(exchange: RequestContext) -> None:
    """The dashboard page. It contains no data of this daemon, so it needs no key; the requests it makes do."""
    from llm_runtime.dashboard import page  # loaded on the first visit

    await exchange.reply(page())


async def livez(exchange: RequestContext) -> None:
    """Whether the process responds at all."""
    await exchange.reply(WireResponse(200, (JSON,), b'{"status":"ok"}'))


async def readyz(exchange: RequestContext) -> None:
    """Whether requests are accepted. ``parked``: the parts that are parked after repeated crashes, if there are any."""
    engine = exchange.service.engine
    ready = engine.is_ready() and not exchange.service.draining and not exchange.service.leaving
    told: dict[str, object] = {"status": "ready" if ready else "not ready"}
    if parked := engine.parked_services():
        told["parked"] = parked
    await exchange.reply(WireResponse(200 if ready else 503, (JSON,), msgspec.json.encode(told)))


async def preflight(exchange: RequestContext) -> None:
    """A CORS preflight request. Only pages of allowed origins get this far."""
    headers = (
        ("access-control-allow-methods", "GET, POST, DELETE"),
        ("access-control-allow-headers", exchange.request.headers.get("access-control-request-headers", "*")),
        ("access-control-max-age", "600"),
    )
    await exchange.reply(WireResponse(204, headers))
