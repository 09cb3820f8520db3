"""Legacy completions, both sides: a prompt that wants to be continued. Answers are read as chat's are."""

from __future__ import annotations

import msgspec

from llm_protocol.codec.body import Body
from llm_protocol.content import JsonObject
from llm_protocol.requests import CompletionRequest
from llm_protocol.wires.openai_chat.inbound import common_parameters, refuse_lost, refuse_many
from llm_protocol.wires.openai_chat.quirks import VendorProfile
from llm_protocol.wires.openai_chat.request import add_parameters

_CHAT_ONLY = frozenset(("reasoning_effort", "parallel_tool_calls"))


def completion_body(request: CompletionRequest, quirks: VendorProfile, *, stream: bool) -> JsonObject:
    """The body of ``POST /completions``, which knows only the old names."""
    legacy = msgspec.structs.replace(
        quirks, parameters=quirks.parameters - _CHAT_ONLY, max_tokens_field="max_tokens", user_field="user"
    )
    body: JsonObject = {"model": request.model, "prompt": request.prompt}
    if request.suffix is not None:
        body["suffix"] = request.suffix
    add_parameters(body, request.parameters, legacy, stream=stream)
    return body


def completion_request(body: Body, name: str) -> CompletionRequest:
    """The request in a client's body. Raises `BadRequestError`, `UnsupportedError`."""
    prompts = body.strings("prompt")
    if len(prompts) != 1:
        raise body.wrong("prompt", "one string; a run is one answer, so send several prompts as several requests")
    for field in ("best_of", "n"):
        refuse_many(body, field)
    refuse_lost(body)
    if body.boolean("echo"):
        raise body.cannot("echo", "echo is not supported: the answer never repeats the prompt")
    return CompletionRequest(
        model=body.model(),
        prompt=prompts[0],
        suffix=body.string("suffix"),
        parameters=common_parameters(body, name),
    )
