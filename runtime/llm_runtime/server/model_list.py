"""The models that a caller may use, as a list and one by one, in the format of the client's wire."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_protocol.codec.wording import suggestion
from llm_protocol.dialect import ModelInfo, WireResponse
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import AUTO
from llm_runtime.server.http_error import JSON
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.run_response import encode_failure

OWNER = "llm-runtime"
"""The owner of entries that no vendor provides: the routes, and `AUTO`."""


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
