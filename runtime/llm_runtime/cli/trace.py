"""``llm-runtime trace ID``: the steps of a request, from the request log."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping

from llm_actors.request_log import LoggedRequest, find
from llm_protocol.content import JsonObject
from llm_runtime.cli.logs import start_logging
from llm_runtime.cli.terminal import print_out
from llm_runtime.config import ConfigError, request_log_folder


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print the timeline, and return the exit code. Raises `ConfigError`."""
    start_logging(arguments.log_level, arguments.log_format)
    print_out("\n".join(timeline(look_up(arguments.id, arguments.config, environ))))
    return 0


def look_up(wanted: str, config: str | None, environ: Mapping[str, str]) -> LoggedRequest:
    """Return the request whose id is ``wanted``: its own id, the id of its response, or the id that the client gave it.
    Raises `ConfigError` if there is none.
    """
    folder = request_log_folder(config, environ)
    try:
        found = find(folder, wanted)
    except OSError as exc:
        raise ConfigError(f"the request log in {folder} cannot be read: {exc.strerror}") from None
    if found is None:
        raise ConfigError(
            f"there is no request {wanted} in the request log in {folder}; only requests made with [request_log] are "
            "in it, for as long as keep_days and max_mb allow"
        )
    return found


def timeline(of: LoggedRequest) -> Iterator[str]:
    """Return the steps of a request, one line for each."""
    decision = of.decision
    yield f"request {of.id}{of.caller and f' of {of.caller}'}, ended at {of.at}"
    if of.client_id:
        yield f"  client's id: {of.client_id}"
    yield f"  requested: {of.request.get('model', '')} ({of.request.get('request_type', '')}), {_strategy(decision)}"
    for name, why in decision.get("passed_over", {}).items():
        yield f"  passed over: {name}: {why}"
    number = 0
    for attempt in decision.get("attempts", ()):
        number += attempt.get("asked", True)
        yield _attempt(number, attempt)
    for name, member in _members(decision):
        yield f"  member {name}: {member.get('outcome', member.get('status', ''))}{_cost(member)}"
    if why := decision.get("stopped"):
        yield f"  no further attempt: {why}"
    if shares := decision.get("budgets"):
        yield f"  budgets past their soft limit: {shares}"
    yield f"  events: {_events(of)}"
    usage = of.usage
    tokens = "" if usage is None else f", {usage.input_tokens} input and {usage.output_tokens} output tokens"
    cost = "" if of.cost is None else f", ${of.cost:.6f}"
    who = f"{of.provider}/{of.model}" if of.provider else "no provider"
    yield f"  ended: {of.outcome} by {who} after {of.ms:.0f} ms{tokens}{cost}"


def _strategy(decision: JsonObject) -> str:
    cache = decision.get("cache", "off")
    return f"strategy {decision.get('strategy', 'single')}" + ("" if cache == "off" else f", cache {cache}")


def _attempt(number: int, attempt: JsonObject) -> str:
    what = f"{'hedge' if attempt.get('hedge') else 'attempt'} {number}"
    lines = [f"  {what if attempt.get('asked', True) else 'not called'}: {attempt['provider']}/{attempt['model']}"]
    if attempt.get("waited_ms"):
        lines.append(f"waited {attempt['waited_ms']:.0f} ms")
    if attempt.get("first_token_ms") is not None:
        lines.append(f"first token after {attempt['first_token_ms']:.0f} ms")
    lines.append(f"{attempt['outcome']} after {attempt['duration_ms']:.0f} ms{_cost(attempt)}")
    if attempt.get("error"):
        lines.append(attempt["error"])
    return ", ".join(lines)


def _members(decision: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    members = decision.get("members", ())
    pairs = members.items() if isinstance(members, dict) else ((str(each.get("member", "")), each) for each in members)
    yield from ((name, each) for name, each in pairs if isinstance(each, dict))


def _cost(of: JsonObject) -> str:
    cost = of.get("cost")
    return f", ${cost:.6f}" if isinstance(cost, float) and cost else ""


def _events(of: LoggedRequest) -> str:
    counts: dict[str, int] = {}
    for event in of.events:
        counts[str(event.get("type"))] = counts.get(str(event.get("type")), 0) + 1
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
