"""Send completion and code requests as chat requests, to vendors that only have chat.

A dialect encodes the request types that its vendor supports; `spoken` converts a request to one of them. The response
to a code request passes through a `CodeFenceStripper`, because models put fences around code even when told not to.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from llm_protocol.codec.fields import unsupported
from llm_protocol.content import Message
from llm_protocol.requests import AnyRequest, ChatRequest, CodeRequest, CompletionRequest, LLMRequest, RequestType

_CONTINUE = (
    "You complete text. What the user sends is the beginning of a text; write what comes next, starting exactly where "
    "it stops, and nothing else. Do not repeat any of it, do not comment, do not add quotes or fences. If the text is "
    "a question or an instruction, what comes next is its answer."
)
_FILL = (
    "You complete text. The user sends a text with a gap: what stands before the gap in <prefix>, what stands after "
    "it in <suffix>. Write the text of the gap and nothing else: it is put between the two exactly as you write it. Do "
    "not repeat any of the prefix or suffix, do not comment, do not add quotes, tags or fences."
)
_CODE = (
    "You write code. Answer with the code alone: no explanation before or after it and no markdown fences. What must "
    "be explained, explain in comments in the code."
)
_CODE_GAP = (
    "The user sends code with a gap: what stands before the gap in <prefix>, what stands after it in <suffix>. Write "
    "the code of the gap only: it is put between the two exactly as you write it, so keep to their indentation and do "
    "not repeat any of them."
)
_FILES = "Files that matter are in <file> elements; use what they define, and do not repeat them."


def offered(types: frozenset[RequestType]) -> frozenset[RequestType]:
    """Return the request types that a vendor with ``types`` can serve: these, and the ones that `spoken` converts to
    chat.
    """
    over_chat = {RequestType.COMPLETION, RequestType.CODE_GENERATION} if RequestType.CHAT in types else set()
    return types | over_chat


def spoken(request: AnyRequest, types: Collection[RequestType]) -> AnyRequest:
    """Return ``request`` in a form that a vendor with ``types`` accepts: unchanged, or as a chat. Raises
    `UnsupportedError` if there is no such form.
    """
    if request.request_type in types:
        return request
    if RequestType.CHAT in types:
        match request:
            case CompletionRequest():
                return completion_as_chat(request)
            case CodeRequest():
                return code_as_chat(request)
    raise unsupported("request_type", f"this vendor does not support {request.request_type} requests")


def completion_as_chat(request: CompletionRequest) -> ChatRequest:
    """Return a chat that asks the model to continue the text, or to fill its gap."""
    if request.suffix is None:
        return _chat(request, _CONTINUE, request.prompt)
    return _chat(request, _FILL, _gap(request.prompt, request.suffix))


def code_as_chat(request: CodeRequest) -> ChatRequest:
    """Return a chat that asks for code only."""
    gap = request.prefix is not None or request.suffix is not None
    rules = [_CODE]
    if request.language:
        rules.append(f"The language is {request.language}.")
    if gap:
        rules.append(_CODE_GAP)
    if request.files:
        rules.append(_FILES)
    files = [f'<file path="{file.path}">\n{file.content}\n</file>' for file in request.files]
    if gap:
        files.append(_gap(request.prefix or "", request.suffix or ""))
    return _chat(request, " ".join(rules), "\n\n".join([*files, request.instruction]))


def _gap(prefix: str, suffix: str) -> str:
    return f"<prefix>{prefix}</prefix>\n<suffix>{suffix}</suffix>"


def _chat(request: LLMRequest, system: str, user: str) -> ChatRequest:
    common: dict[str, Any] = {name: getattr(request, name) for name in LLMRequest.__struct_fields__}
    return ChatRequest(**common, messages=(Message.of("system", system), Message.of("user", user)))
