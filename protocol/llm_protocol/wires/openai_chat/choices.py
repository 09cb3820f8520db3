"""Several choices in one response: ``n``, and completions of several prompts. Each is a request of its own."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_protocol.codec.json import encode_json
from llm_protocol.dialect import Frame, Inbound
from llm_protocol.requests import CompletionRequest
from llm_protocol.response import LLMResponse
from llm_protocol.vendor_profile import OPENAI, VendorProfile
from llm_protocol.wires.openai_chat.server_stream import DONE, encode_whole, opening, whole_body
from llm_protocol.wires.openai_chat.shapes import usage_body

MOST_CHOICES = 128
"""Choices in one response, as at OpenAI."""


def with_choices(inbound: Inbound, prompts: Sequence[str | None]) -> Inbound:
    """``inbound`` with one more request for each of ``prompts``; ``None`` stands for the same prompt."""
    first = msgspec.structs.replace(inbound.request, one_of=len(prompts))
    requests = [
        msgspec.structs.replace(first, prompt=prompt) if isinstance(first, CompletionRequest) else first
        for prompt in prompts
    ]
    return inbound._replace(request=requests[0], choices=tuple(requests[1:]))


def encode_choices(inbound: Inbound, response: LLMResponse, profile: VendorProfile) -> bytes:
    """The body of a complete response. Several choices are its ``members``."""
    if not inbound.choices:
        return encode_whole(inbound, response, profile)
    body = whole_body(inbound, response, profile)
    choices = [
        whole_body(inbound._replace(choice=at), member, profile)["choices"][0]
        for at, member in enumerate(response.members)
    ]
    return encode_json({**body, "choices": choices})


def closing_frames(inbound: Inbound, response: LLMResponse, profile: VendorProfile = OPENAI) -> list[Frame]:
    """The frames after the last choice of a stream has ended. ``response`` is the combined response."""
    request = inbound.request
    frames: list[Frame] = []
    if inbound.include_usage and response.usage is not None:
        kind = "text_completion" if isinstance(request, CompletionRequest) else "chat.completion.chunk"
        head = opening(response.response_id, kind, int(request.timestamp), response.model, profile)
        frames.append(Frame(None, encode_json({**head, "choices": [], "usage": usage_body(response.usage)})))
    return [*frames, DONE]
