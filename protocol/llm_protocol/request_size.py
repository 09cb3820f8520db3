"""The approximate size of a request. Pure."""

from __future__ import annotations

from collections.abc import Sized
from typing import TypeGuard

from llm_protocol.content import Audio, Document, Image, Part, Text, ToolResult
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    CodeRequest,
    CompletionRequest,
    EmbeddingRequest,
    ImageRequest,
)

MESSAGE_BYTES = 500
"""Each message counts as at least this many bytes of text, because encoding it takes as long."""

TOKEN_BYTES = 8


def size_of(request: AnyRequest) -> int:
    """Return the approximate cost of encoding a request, and of keeping it in memory, in bytes."""
    size = 0
    for extra in request.parameters.extra.values():
        size += sum(len(value) for value in extra.values() if _is_long(value))
    match request:
        case ChatRequest():
            for message in request.messages:
                size += MESSAGE_BYTES
                for part in message.content:
                    size += len(part.text) if type(part) is Text else _part_size(part)
        case ImageRequest():
            size += sum(map(_part_size, (*request.images, request.mask) if request.mask else request.images))
        case EmbeddingRequest():
            size += sum(len(each) * (1 if isinstance(each, str) else TOKEN_BYTES) for each in request.inputs)
        case CompletionRequest():
            size += len(request.prompt) + len(request.suffix or "")
        case CodeRequest():
            size += sum(map(len, (request.instruction, request.prefix or "", request.suffix or "")))
            size += sum(len(each.content) for each in request.files)
    return size


def _part_size(part: Part) -> int:
    match part:
        case ToolResult():
            return sum(map(_part_size, part.content))
        case Image():
            return len(part.data or b"")
        case Document() | Audio():
            return len(part.data or part.base64 or getattr(part, "text", None) or "")
        case _:
            return len(getattr(part, "text", ""))


def _is_long(value: object) -> TypeGuard[Sized]:
    return isinstance(value, list | dict | str)
