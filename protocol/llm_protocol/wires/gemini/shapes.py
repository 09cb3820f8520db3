"""What Gemini's answers look like, typed for speed."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.content import JsonObject
from llm_protocol.response import Usage


class GeminiCall(msgspec.Struct, frozen=True, gc=False):
    """A call of a function."""

    name: str = ""
    args: JsonObject | None = None
    id: str | None = None


class GeminiBlob(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Bytes in base64."""

    mime_type: str | None = None
    data: str | None = None


class GeminiPart(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A piece of content: one of its fields says which."""

    text: str | None = None
    thought: Any = None
    thought_signature: str | None = None
    function_call: GeminiCall | None = None
    inline_data: GeminiBlob | None = None


class GeminiContent(msgspec.Struct, frozen=True, gc=False):
    """What a candidate says."""

    parts: list[GeminiPart] | None = None


class GeminiCandidate(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One answer of several; only that with index 0 is ever asked for."""

    content: GeminiContent | None = None
    finish_reason: str | int | None = None
    index: int | None = None


class GeminiFeedback(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Why a prompt was refused."""

    block_reason: str | int | None = None


class GeminiModality(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Tokens of one kind: text, pictures, sound."""

    modality: str | int | None = None
    token_count: int | None = None


class GeminiUsageMetadata(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Gemini's counts: ``candidates`` without thoughts, ``prompt`` with what was cached but without tools' results."""

    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    candidates_tokens_details: list[GeminiModality] | None = None

    def usage(self) -> Usage:
        """The same on the common scale."""
        thoughts = self.thoughts_token_count or 0
        return Usage(
            input_tokens=(self.prompt_token_count or 0) + (self.tool_use_prompt_token_count or 0),
            output_tokens=(self.candidates_token_count or 0) + thoughts,
            cached_tokens=self.cached_content_token_count or 0,
            reasoning_tokens=thoughts,
            image_tokens=sum(d.token_count or 0 for d in self.candidates_tokens_details or () if d.modality == "IMAGE"),
        )


class GeminiChunk(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A whole answer or a streamed piece of one."""

    candidates: list[GeminiCandidate] | None = None
    prompt_feedback: GeminiFeedback | None = None
    usage_metadata: GeminiUsageMetadata | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None
