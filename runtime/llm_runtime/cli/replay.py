"""``llm-runtime replay ID``: send a request of the request log again, and compare the two responses."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import suppress
from difflib import unified_diff

import msgspec
import trio

from llm_actors.request_log import LoggedRequest
from llm_protocol.content import Image, Text, ToolCall
from llm_protocol.events import Event
from llm_protocol.fold import Fold
from llm_protocol.policy import Policy
from llm_protocol.requests import AnyRequest, new_request_id
from llm_protocol.response import LLMResponse
from llm_runtime.cli.logs import start_logging
from llm_runtime.cli.setup import configured
from llm_runtime.cli.terminal import leaf, print_out, say
from llm_runtime.cli.trace import look_up
from llm_runtime.config import ConfigError
from llm_runtime.opening import open_runtime

_UNCACHED = Policy(cache="off")


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Send the logged request again, print how the new response differs from the logged one, and return the exit
    code. Raises `LLMClientError` or `ConfigError`.
    """
    start_logging(arguments.log_level, arguments.log_format)
    before = look_up(arguments.id, arguments.config, environ)
    if before.redacted:
        raise ConfigError(
            "this request was logged without its texts and cannot be repeated; redact = false in [request_log] logs "
            "the texts of later requests"
        )
    try:
        after = trio.run(_ask, again(before, arguments.model), arguments, environ)
    except BaseExceptionGroup as group:
        raise leaf(group) from None
    print_out("\n".join(difference(before, after)))
    return 0


def again(logged: LoggedRequest, model: str | None) -> AnyRequest:
    """Return the logged request as a new request, to the same or to another ``model``. Raises `ConfigError`."""
    try:
        request: AnyRequest = msgspec.convert(logged.request, AnyRequest)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"this request was logged by another version and cannot be repeated: {exc}") from None
    policy = _UNCACHED if request.policy is None else _UNCACHED.over(request.policy)
    fresh: AnyRequest = msgspec.structs.replace(request, request_id=new_request_id(), caller="", policy=policy)
    return fresh if model is None else msgspec.structs.replace(fresh, model=model, provider=None)


async def _ask(request: AnyRequest, arguments: argparse.Namespace, environ: Mapping[str, str]) -> LLMResponse:
    config = msgspec.structs.replace(
        configured(arguments.config, environ, say), store=None, request_log=None, budgets={}
    )
    async with open_runtime(config) as rt:
        return await rt.send(request)


def difference(before: LoggedRequest, after: LLMResponse) -> Iterator[str]:
    """Return the differences as lines: outcome, duration, tokens and cost of both; text and tool calls line by line;
    whether embeddings and images are the same.
    """
    usage = before.usage
    yield (
        f"before: {before.provider}/{before.model}, {before.outcome}, {before.ms:.0f} ms, {_tokens(usage)}, "
        f"{_cost(before.cost)}"
    )
    yield (
        f"after:  {after.provider}/{after.model}, {after.finish_reason}, {after.processing_time_ms:.0f} ms, "
        f"{_tokens(after.usage)}, {_cost(after.cost)}"
    )
    fold = _fold_of(before)
    parts = fold.parts()
    images = tuple(each for each in parts if isinstance(each, Image))
    others = [("embeddings", fold.vectors, after.embeddings), ("images", images, after.images)]
    compared = [(what, old == new) for what, old, new in others if old or new]
    yield from (f"the {what} are {'the same' if is_same else 'different'}" for what, is_same in compared)
    then = "".join(each.text for each in parts if isinstance(each, Text))
    lines = [*unified_diff(then.splitlines(), after.content.splitlines(), "before", "after", lineterm="", n=2)]
    yield from lines or ([] if compared else ["the text is the same"])
    calls = [f"{each.name}({each.arguments})" for each in after.tool_calls]
    old = [f"{each.name}({each.arguments})" for each in parts if isinstance(each, ToolCall)]
    if calls != old:
        yield from (f"- {each}" for each in old)
        yield from (f"+ {each}" for each in calls)


def _fold_of(logged: LoggedRequest) -> Fold:
    """Return the logged response. Parts that the provider retracted are not in it, and the record of a failure is
    skipped.
    """
    fold = Fold()
    for each in logged.events:
        with suppress(msgspec.ValidationError):
            fold.add(msgspec.convert(each, Event))
    return fold


def _tokens(usage: object) -> str:
    counts = getattr(usage, "input_tokens", 0), getattr(usage, "output_tokens", 0)
    return f"{counts[0]} input and {counts[1]} output tokens"


def _cost(cost: float | None) -> str:
    return "cost unknown" if cost is None else f"${cost:.6f}"
