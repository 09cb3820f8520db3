"""``GET /v1/runtime/spend``: the spending of all callers, for admins; for other callers, their own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args
from urllib.parse import parse_qs

import msgspec

from llm_actors.store import get_spend
from llm_actors.store.ledger import By
from llm_protocol.dialect import WireResponse
from llm_runtime.server.http_error import JSON, HttpError
from llm_runtime.server.request_context import RequestContext


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
