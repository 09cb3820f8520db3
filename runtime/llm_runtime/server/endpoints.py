"""The endpoints of the wires, but for stored responses: requests to a model, the list of models, token counts, the
compaction of a conversation, and the handshake of a WebSocket.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Sequence

import msgspec

from llm_actors.threads import run_large
from llm_protocol.codec.body import is_form
from llm_protocol.codec.json import encode_json
from llm_protocol.codec.wording import suggestion
from llm_protocol.content import JsonObject
from llm_protocol.dialect import ClientRequest, ModelInfo, WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import AUTO, AnyRequest, ChatRequest
from llm_protocol.response import LLMResponse, TokenCount
from llm_protocol.wires.responses.compaction import compaction_request, encode_compaction
from llm_runtime.server.beginning import after_parent
from llm_runtime.server.bodies import admitted, decode_body, with_headers
from llm_runtime.server.choices import natively, respond_with_choices
from llm_runtime.server.http1 import Request
from llm_runtime.server.http_error import JSON, HttpError, shutting_down
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.run_response import encode_end, encode_failure, end_of, fact_headers, respond
from llm_runtime.server.stored import RESPONSES

OWNER = "llm-runtime"
"""The owner of entries that no vendor provides: the routes, and `AUTO`."""

ESTIMATED = ("x-llm-runtime-estimated", "true")
"""The header of an estimated count: the vendor has no endpoint for it, or could not be reached."""

_EMPTY = "the model wrote no summary"

_UPGRADE = (("upgrade", "websocket"),)
_VERSION = (("sec-websocket-version", "13"),)
_KEY_BYTES = 16


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
        decoded = await decode_body(limits, body, lambda text: dialect.decode_request(target, text))
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


class _Page(msgspec.Struct):
    """A page of the model list, in any wire's format."""

    data: list[msgspec.Raw] = []
    models: list[msgspec.Raw] = []


async def list_models(context: RequestContext) -> None:
    """``GET /v1/models``: the models, then the routes and ``auto``."""
    body = context.wire.dialect().encode_models(_known(context))
    await context.reply(WireResponse(200, (JSON,), body))


async def get_model(context: RequestContext) -> None:
    """Return one model of the list, by its full id, or by its bare name if only one provider has it."""
    wanted, dialect = context.params["id"].removeprefix("models/"), context.wire.dialect()
    known = _known(context)
    found = [each for each in known if each.id == wanted] or [
        each for each in known if each.id.partition("/")[2] == wanted
    ]
    if not found:
        near = suggestion(wanted, [name for each in known for name in (each.id, each.id.partition("/")[2]) if name])
        message = f"The model {wanted[:200]!r} does not exist{near or '.'}"
        failure = Failure(kind=FailureKind.MODEL_NOT_FOUND, message=message, param="model")
        await context.reply(encode_failure(dialect, failure))
        return
    page = msgspec.json.decode(dialect.encode_models(found[:1]), type=_Page)
    await context.reply(WireResponse(200, (JSON,), bytes((page.data or page.models)[0])))


def _known(context: RequestContext) -> Sequence[ModelInfo]:
    engine, caller = context.server_state.engine, context.caller
    names = (*engine.route_names(caller), AUTO)
    return (*engine.model_list(caller), *(ModelInfo(id=name, owned_by=OWNER) for name in names))


async def count_for_messages(context: RequestContext) -> None:
    """``POST /v1/messages/count_tokens``."""
    await _count(context, lambda count: {"input_tokens": count.tokens})


async def count_for_contents(context: RequestContext) -> None:
    """``POST /v1beta/models/{id}:countTokens``."""
    await _count(context, lambda count: {"totalTokens": count.tokens})


async def _count(context: RequestContext, body_of: Callable[[TokenCount], JsonObject]) -> None:
    dialect, target = context.wire.dialect(), context.target
    try:
        body = await context.take_body()
        inbound = await decode_body(
            context.server_state.json_limits, body, lambda text: dialect.decode_request(target, text)
        )
        await _reply_count(context, inbound, body_of)
    except LLMClientError as exc:
        await context.reply(encode_failure(dialect, exc.failure))


async def count_for_response(context: RequestContext) -> None:
    """``POST /v1/responses/input_tokens``; the conversation before ``previous_response_id`` is included."""
    try:
        body = await context.take_body()
        create = await decode_body(context.server_state.json_limits, body, RESPONSES.decode_create)
        inbound = await after_parent(context.server_state, create, context.caller)
        await _reply_count(
            context, inbound, lambda count: {"object": "response.input_tokens", "input_tokens": count.tokens}
        )
    except LLMClientError as exc:
        await context.reply(encode_failure(RESPONSES, exc.failure))


async def _reply_count(
    context: RequestContext, inbound: ClientRequest, body_of: Callable[[TokenCount], JsonObject]
) -> None:
    request = admitted(context.caller, inbound).request
    await context.server_state.check_issued(request)
    count = await context.server_state.engine.count_tokens(request)
    marks = (ESTIMATED,) if count.estimated else ()
    await context.reply(WireResponse(200, (JSON, *marks), encode_json(body_of(count))))


async def compact(context: RequestContext) -> None:
    """``POST /v1/responses/compact``: replace a conversation by a summary that the named model writes. The conversation
    before ``previous_response_id`` is included in the summary.
    """
    context.end_with_client()
    server_state = context.server_state
    try:
        body = await context.take_body()
        create = await decode_body(server_state.json_limits, body, RESPONSES.decode_create)
        inbound = admitted(context.caller, await after_parent(server_state, create, context.caller))
        request = inbound.request
        assert isinstance(request, ChatRequest), "this endpoint must read chat requests"
        run = await server_state.start_run(compaction_request(request), stream=False)
    except LLMClientError as exc:
        await context.reply(encode_failure(RESPONSES, exc.failure))
        return
    context.request_id = request.request_id
    end = await end_of(context, run)
    if isinstance(end, Finished) and end.response is not None and not end.response.content.strip():
        end = Failed(failure=Failure(kind=FailureKind.PROTOCOL, message=_EMPTY), response=end.response)
    if isinstance(end, Failed):
        await context.reply(await encode_end(RESPONSES, inbound, end))
        return
    assert isinstance(end.response, LLMResponse), "the end of a run must have a response"
    response = msgspec.structs.replace(end.response, response_id=run.response_id)
    await context.reply(WireResponse(200, (JSON, *fact_headers(response)), encode_compaction(request, response)))


async def websocket(context: RequestContext) -> None:
    """Start a WebSocket session."""
    server_state = context.server_state
    check_handshake(context.request, enabled=server_state.config.websocket, draining=server_state.draining)
    context.upgrade()


def check_handshake(request: Request, *, enabled: bool, draining: bool) -> None:
    """Raise `HttpError` unless ``request`` is a valid opening handshake. If WebSockets are disabled, the status is 426,
    which tells clients to use HTTP instead.
    """
    if draining:
        raise shutting_down()
    if not enabled:
        raise HttpError(426, "upgrade_required", "WebSockets are disabled here; use POST /v1/responses.")
    options = [each.strip() for each in request.headers.get("connection", "").lower().split(",")]
    if not request.wants_upgrade or "upgrade" not in options:
        message = "This is a WebSocket endpoint: connect with ws://, or POST to it."
        raise HttpError(426, "upgrade_required", message, headers=_UPGRADE)
    if request.method != "GET" or request.version != "1.1" or request.body:
        raise HttpError(400, "bad_handshake", "A WebSocket handshake must be a GET request of HTTP/1.1 without a body.")
    if request.headers.get("sec-websocket-version") != "13":
        raise HttpError(426, "bad_handshake", "Only WebSocket version 13 is supported.", headers=_VERSION)
    if not _is_key(request.headers.get("sec-websocket-key", "")):
        raise HttpError(400, "bad_handshake", "Sec-WebSocket-Key must be 16 bytes in base64.")
    if not request.headers.get("sec-websocket-protocol", "").isascii():
        raise HttpError(400, "bad_handshake", "Sec-WebSocket-Protocol must be ASCII.")


def _is_key(value: str) -> bool:
    try:
        return len(b64decode(value, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False


async def preflight(context: RequestContext) -> None:
    """Respond to a CORS preflight request. Only requests from pages of allowed origins get this far."""
    headers = (
        ("access-control-allow-methods", "GET, POST, DELETE"),
        ("access-control-allow-headers", context.request.headers.get("access-control-request-headers", "*")),
        ("access-control-max-age", "600"),
    )
    await context.reply(WireResponse(204, headers))
