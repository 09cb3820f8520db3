"""Start a response of the Responses API, for HTTP and WebSocket: look up its parent, start its run, store it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_actors.run import Run
from llm_protocol.codec.fields import bad_request
from llm_protocol.content import Message, ToolCall, ToolResult
from llm_protocol.dialect import ClientRequest
from llm_protocol.events import Finished, Started, UsageReported
from llm_protocol.requests import AnyRequest
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.responses import Create
from llm_runtime.server.bodies import admitted, with_headers
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.item_references import referenced_responses, with_references
from llm_runtime.server.response_store import Recent, StoredResponse
from llm_runtime.server.state import ServerState


async def begin(
    server_state: ServerState,
    create: Create,
    caller: str,
    size: int,
    *,
    headers: Mapping[str, str],
    stream: bool,
    recent: Recent | None = None,
    since: float | None = None,
    response_id: str | None = None,
) -> StoredResponse:
    """Start a response. ``size`` is the size of its request in bytes. ``headers`` are the header fields of the
    request, or of the WebSocket handshake. ``since`` is the time at which the request was accepted (Trio's clock;
    default: now), and ``response_id`` the id that the response got at that time. Raises `LLMClientError` and
    `HttpError`.

    The run waits for its first follower, so the caller must attach one without an intervening checkpoint.
    """
    await _bring(server_state, create, caller, recent)
    create = with_references(create, server_state.response_store, caller, recent)
    options, response_id = create.options, response_id or server_state.new_response_id()
    parent = _parent(server_state, options.previous_response_id, caller, recent)
    before, weight = parent or ((), 0)
    inbound = create.after(before) if before else create.inbound
    inbound = admitted(caller, with_headers(inbound, headers, caller, server_state.access.secret_of(caller)))
    if options.generate:
        check_calls_are_answered(before, create.input)
        run = await server_state.start_run(
            inbound.request,
            stream=stream or options.background,
            background=options.background,
            since=since,
            response_id=response_id,
        )
    else:
        run = warmed_up(inbound.request, response_id)
    stored = StoredResponse(run, inbound, options, (*before, *create.input), weight + size)
    server_state.response_store.put(stored)
    server_state.persistence.keep(stored)
    return stored


async def after_parent(server_state: ServerState, create: Create, caller: str) -> ClientRequest:
    """Return the request with the preceding conversation before its own input. Raises `HttpError`."""
    await _bring(server_state, create, caller, None)
    create = with_references(create, server_state.response_store, caller)
    parent = _parent(server_state, create.options.previous_response_id, caller, None)
    return create.inbound if parent is None else create.after(parent[0])


async def _bring(server_state: ServerState, create: Create, caller: str, recent: Recent | None) -> None:
    """Load the stored responses to which the request refers into memory. Raises `HttpError`."""
    previous = create.options.previous_response_id
    wanted = referenced_responses(create)
    for each in wanted if previous is None else (previous, *wanted):
        if recent is None or not recent.is_current(each):
            await server_state.bring(each, caller)


def check_calls_are_answered(before: Sequence[Message], added: Sequence[Message]) -> None:
    """Raise `BadRequestError`, worded as OpenAI does, if ``before`` contains a tool call whose output is not in
    ``added``.
    """
    calls = [part.id for message in before for part in message.content if isinstance(part, ToolCall)]
    if not calls:
        return
    messages = (*before, *added)
    answered = {part.call_id for message in messages for part in message.content if isinstance(part, ToolResult)}
    for call in calls:
        if call not in answered:
            raise bad_request("input", f"No tool output found for function call {call}.")


def _parent(
    server_state: ServerState, response_id: str | None, caller: str, recent: Recent | None
) -> tuple[tuple[Message, ...], int] | None:
    """Return the conversation that a response continues, with its size in bytes; ``None`` without ``response_id``.
    Raises `HttpError` if the response does not exist.
    """
    if response_id is None:
        return None
    stored = (recent.get(response_id) if recent else None) or server_state.response_store.find(response_id, caller)
    conversation = stored.conversation() if stored else None
    if stored is None or conversation is None:
        message = f"Previous response with id '{response_id[:100]}' not found."
        raise HttpError(400, "previous_response_not_found", message, param="previous_response_id")
    return conversation, stored.weight


def warmed_up(request: AnyRequest, response_id: str | None = None) -> Run:
    """Return the run of a ``generate: false`` request: an empty response that is complete at once. A later request
    can continue it.
    """
    run = Run(request, stream=True, background=True, response_id=response_id)
    response = LLMResponse(
        request_id=request.request_id,
        response_id=run.response_id,
        provider=request.provider or "",
        model=request.model,
        usage=Usage(),
        finish_reason=FinishReason.STOP,
    )
    for event in Started(model=request.model), UsageReported(Usage()):
        run.log.append(event)
    run.log.append(Finished(reason=FinishReason.STOP, response=response))
    return run
