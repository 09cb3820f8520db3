"""The endpoints that keep no state between requests."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import msgspec
import trio

from llm_actors.threads import run_large
from llm_protocol.codec.body import is_form
from llm_protocol.dialect import ClientRequest, WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.requests import AUTO, AnyRequest
from llm_runtime.config import ConfigError
from llm_runtime.config.source_file import configuration_file
from llm_runtime.server.bodies import admitted, read_body, with_headers
from llm_runtime.server.choices import natively, respond_with_choices
from llm_runtime.server.client_wire import openai
from llm_runtime.server.handshake import check_handshake
from llm_runtime.server.http_error import JSON, HttpError, not_found
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.run_response import encode_failure, respond

METRICS = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of Prometheus' text format."""


async def ask(context: RequestContext) -> None:
    """Handle a request to a model, in the wire that the client uses."""
    dialect = context.wire.dialect()
    context.end_with_client()
    inbound: ClientRequest | None = None
    try:
        target, headers = context.target, context.request.headers
        body = await context.take_body()
        if is_form(body):
            body = await _without_form(body)
        limits = context.server_state.json_limits
        decoded = await read_body(limits, body, lambda text: dialect.decode_request(target, text))
        del body  # the body may be large, and the response take long
        secret = context.server_state.access.secret_of(context.caller)
        decoded = with_headers(decoded, headers, context.caller, secret)
        inbound = admitted(context.caller, decoded)
        if (request := _tellable(inbound.request)) is not inbound.request:
            inbound = inbound._replace(request=request)
        if inbound.choices:
            single = await natively(context, inbound)
            if single is None:
                await respond_with_choices(context, dialect, inbound)
                return
            inbound = single
        run = await context.server_state.start_run(inbound.request, stream=inbound.stream)
    except LLMClientError as exc:
        await context.reply(encode_failure(dialect, exc.failure, inbound))
    else:
        context.request_id = inbound.request.request_id
        await respond(context, dialect, inbound, run)


async def _without_form(body: bytes) -> bytes:
    """Return a body as JSON; a form is converted."""
    from llm_protocol.wires.openai_chat.images import form_as_json  # only such requests need it

    return await run_large(len(body), form_as_json, body)


def _tellable(request: AnyRequest) -> AnyRequest:
    """Return the request without ``on_broken_stream = "restart"``: only the Responses wire can tell a client that a
    response starts again.
    """
    policy = request.policy
    if policy is None or policy.on_broken_stream != "restart":
        return request
    return msgspec.structs.replace(request, policy=msgspec.structs.replace(policy, on_broken_stream="error"))


async def websocket(context: RequestContext) -> None:
    """Start a WebSocket session."""
    server_state = context.server_state
    check_handshake(context.request, enabled=server_state.config.websocket, draining=server_state.draining)
    context.upgrade()


async def tree(context: RequestContext) -> None:
    """Send the live supervision tree."""
    found, siblings = context.server_state.engine.tree(), context.server_state.siblings
    if siblings is not None:
        found = await siblings.tree(found)
    body = msgspec.json.encode(found, enc_hook=str)
    await context.reply(WireResponse(200, (JSON,), body))


async def explain(context: RequestContext) -> None:
    """Send the providers that would be tried for a model, in order, with the reasons."""
    query = parse_qs(urlsplit(context.request.target).query)
    try:
        model = query.get("model", [AUTO])[0]
        ranking = await context.server_state.engine.explain(model, caller=context.caller)
    except LLMClientError as exc:
        await context.reply(encode_failure(openai(), exc.failure))
        return
    body = msgspec.json.encode({**ranking.record(), "lines": ranking.lines()})
    await context.reply(WireResponse(200, (JSON,), body))


async def metrics(context: RequestContext) -> None:
    """Send counters and gauges for Prometheus."""
    body, siblings = await context.server_state.engine.metrics(), context.server_state.siblings
    if siblings is not None:
        body = await siblings.metrics(body)
    await context.reply(WireResponse(200, (("content-type", METRICS),), body))


async def statistics(context: RequestContext) -> None:
    """Return the metrics as JSON, grouped by provider and caller, for the dashboard. If keys are configured, a caller
    without ``admin`` gets its own usage only.
    """
    caller = None if context.server_state.access.sees_all(context.caller) else context.caller
    found, siblings = await context.server_state.engine.statistics(caller), context.server_state.siblings
    if siblings is not None:
        found = await siblings.statistics(found, caller)
    body = msgspec.json.encode(found)
    await context.reply(WireResponse(200, (JSON, ("cache-control", "no-store")), body))


async def recent_requests(context: RequestContext) -> None:
    """Return the requests that ended most recently. If keys are configured, a caller without ``admin`` gets its own
    only.
    """
    caller = None if context.server_state.access.sees_all(context.caller) else context.caller
    found, siblings = context.server_state.engine.recent_requests(caller), context.server_state.siblings
    if siblings is not None:
        found = await siblings.recent_requests(found, caller)
    body = msgspec.json.encode({"requests": found})
    await context.reply(WireResponse(200, (JSON, ("cache-control", "no-store")), body))


async def reload(context: RequestContext) -> None:
    """Reload the configuration, and return the changes. If the new configuration has mistakes, respond with 400 and
    one line for each; the old configuration stays in effect.
    """
    if context.server_state.reload is None:
        raise not_found("configuration to reload")
    try:
        changed = await context.server_state.reload()
    except ConfigError as exc:
        raise HttpError(400, "invalid_configuration", "\n".join(map(str, exc.all))) from exc
    except LLMClientError as exc:
        raise HttpError(exc.failure.rule.status, exc.failure.rule.code, str(exc)) from exc
    await context.reply(WireResponse(200, (JSON,), msgspec.json.encode(changed)))


async def configuration(context: RequestContext) -> None:
    """Return the path of the configuration file and the digest of its current content. ``llm-runtime deploy`` reads
    them.
    """
    try:
        found = await trio.to_thread.run_sync(configuration_file, context.server_state.file, abandon_on_cancel=True)
    except ConfigError as exc:
        raise HttpError(400, "invalid_configuration", str(exc)) from exc
    await context.reply(WireResponse(200, (JSON, ("cache-control", "no-store")), msgspec.json.encode(found)))


async def dashboard(context: RequestContext) -> None:
    """Send the dashboard page. It contains no data of this daemon, so it needs no key; the page's own requests need
    one.
    """
    from llm_runtime.dashboard import page  # loaded on the first visit

    await context.reply(page())


async def livez(context: RequestContext) -> None:
    """``GET /livez``: send 200. It shows that the process responds."""
    await context.reply(WireResponse(200, (JSON,), b'{"status":"ok"}'))


async def readyz(context: RequestContext) -> None:
    """``GET /readyz``: send 200 if requests are accepted, else 503. ``parked``: the parts that are parked after
    repeated crashes, if there are any.
    """
    engine = context.server_state.engine
    ready = engine.is_ready() and not context.server_state.draining and not context.server_state.leaving
    body: dict[str, object] = {"status": "ready" if ready else "not ready"}
    if parked := engine.parked_services():
        body["parked"] = parked
    await context.reply(WireResponse(200 if ready else 503, (JSON,), msgspec.json.encode(body)))


async def preflight(context: RequestContext) -> None:
    """Respond to a CORS preflight request. Only requests from pages of allowed origins get this far."""
    headers = (
        ("access-control-allow-methods", "GET, POST, DELETE"),
        ("access-control-allow-headers", context.request.headers.get("access-control-request-headers", "*")),
        ("access-control-max-age", "600"),
    )
    await context.reply(WireResponse(204, headers))
