"""The endpoints for the daemon's operation: its health, actors, metrics, requests, spending and configuration."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args
from urllib.parse import parse_qs, urlsplit

import msgspec
import trio

from llm_actors.store import get_spend
from llm_actors.store.ledger import By
from llm_protocol.dialect import WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.requests import AUTO
from llm_runtime.config import ConfigError
from llm_runtime.config.source_file import configuration_file
from llm_runtime.server.client_wire import openai
from llm_runtime.server.http_error import JSON, HttpError, not_found
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.run_response import encode_failure

METRICS = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of Prometheus' text format."""


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


async def spend(context: RequestContext) -> None:
    """Send sums ``by`` key (the default), team, model, route or day, from the day or time ``since`` on (UTC)."""
    query = parse_qs(context.request.query)
    column = query.get("by", ["key"])[-1]
    by: By | None = next((each for each in get_args(By) if each == column), None)
    if by is None:
        raise HttpError(400, "invalid_request", f"by must be one of {', '.join(get_args(By))}.", param="by")
    since = _since(query.get("since", [""])[-1])
    store = context.server_state.engine.store
    if store is None:
        message = "There is no ledger. The daemon keeps one if its configuration has a [store] section."
        raise HttpError(404, "no_ledger", message)
    sees_all = context.server_state.access.sees_all(context.caller)
    rows = await get_spend(store, by, since=since, caller=None if sees_all else context.caller)
    if rows is None:
        raise HttpError(503, "ledger_unavailable", "The ledger cannot be read now. Try again.")
    body = msgspec.json.encode({"by": by, "since": since, "data": rows, "cost": sum(each.cost for each in rows)})
    await context.reply(WireResponse(200, (JSON, ("cache-control", "no-store")), body))


def _since(text: str) -> float:
    try:
        return parse_since(text)
    except ValueError:
        message = "since must be a day or time such as 2026-01-31 or 2026-01-31T12:00:00Z."
        raise HttpError(400, "invalid_request", message, param="since") from None


def parse_since(text: str) -> float:
    """Return the seconds since the epoch for a day or time in ISO 8601, in UTC by default; 0 for an empty text. Raises
    `ValueError`.
    """
    if not text:
        return 0.0
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
