"""Responses of a type: the schema that is sent, the value received, and the partial value while it streams."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from llm_protocol.content import Message, ResponseFormat
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import ChatRequest
from llm_protocol.response import LLMResponse
from llm_runtime.schemas import DoesNotFitError, fits, is_object, schema_of

T = TypeVar("T")

WRAPPED = "value"
"""The key under which a value that is not an object is wrapped: vendors accept only schemas of objects."""


_TOKEN = re.compile(r'[ \t\n\r]*(?:([{}\[\],:])|"((?:[^"\\]|\\.)*)(")?|([^\s{}\[\],:"]+))', re.DOTALL)
_WHOLE_UNITS = re.compile(
    r'(?:[^"\\]|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4})*', re.DOTALL
)
"""Characters and escapes that are complete. Surrogates are complete only in pairs."""

_CLOSING = {"{": "}", "[": "]"}


class ParsedResponse(LLMResponse, Generic[T], frozen=True, kw_only=True):
    """A response, with the value of the requested type as ``parsed``."""

    parsed: T


class ResponseTypeError(LLMClientError):
    """The response is complete but is not JSON of the requested type. ``partial`` is the response."""

    kind = FailureKind.PROTOCOL

    @property
    def is_repairable(self) -> bool:
        """Whether the model can be told what is wrong. It cannot if the response calls tools, because those calls have
        no results.
        """
        return self.partial is not None and not self.partial.tool_calls


class ResponseType(Generic[T]):
    """The type that a program wants a response to have: the format that is requested, and the conversion of the
    response.
    """

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind
        schema = schema_of(kind)
        self._is_wrapped = not is_object(schema)
        if self._is_wrapped:
            definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
            properties = {WRAPPED: schema}
            schema = {"type": "object", "properties": properties, "required": [WRAPPED], "additionalProperties": False}
            schema |= definitions
        self.format = ResponseFormat(type="json_schema", name=_safe_name(kind), schema=schema)

    def parse(self, response: LLMResponse) -> ParsedResponse[T]:
        """Return ``response`` with its content as a value of the type (`ParsedResponse.parsed`). Raises
        `ResponseTypeError` if the content is not JSON of that type.
        """
        kind: Any = self.kind
        if self._is_wrapped:
            kind = msgspec.defstruct("Wrapped", [(WRAPPED, self.kind)])
        try:
            value = fits(kind, response.content)
        except DoesNotFitError as exc:
            words = f"the response is not JSON of the type {_safe_name(self.kind)}: {exc}"
            raise ResponseTypeError(Failure(kind=FailureKind.PROTOCOL, message=words), response) from None
        parsed = getattr(value, WRAPPED) if self._is_wrapped else value
        fields = {name: getattr(response, name) for name in LLMResponse.__struct_fields__}
        return ParsedResponse(**fields, parsed=parsed)

    def partial(self, text: str) -> Any:
        """Return the value of the JSON received until now: dicts, lists and strings; ``None`` before any value has
        begun.
        """
        value = completed(text)
        if self._is_wrapped:
            return value.get(WRAPPED) if isinstance(value, Mapping) else None
        return value

    def repair(self, request: ChatRequest, error: ResponseTypeError) -> ChatRequest:
        """Return the follow-up request that tells the model its mistake."""
        assert error.partial is not None
        words = f"This does not fit: {error.failure.message}. Answer again, with the whole JSON and nothing else."
        messages = (*request.messages, error.partial.message, Message.of("user", words))
        return ChatRequest(
            **{
                name: getattr(request, name)
                for name in ChatRequest.__struct_fields__
                if name not in ("messages", "request_id")
            },
            messages=messages,
        )


def _safe_name(kind: Any) -> str:
    name = getattr(kind, "__name__", "response")
    return "".join(each if each.isascii() and each.isalnum() else "_" for each in name)[:60]


def completed(text: str) -> Any:
    """Return the value of the incomplete JSON in ``text``: open brackets are closed, ambiguous parts left out.

    An unfinished string counts up to its end. A number or literal counts only if something follows it. ``None`` for
    an empty ``text``, and for text that is not JSON.
    """
    start = text.find("{") if "{" in text else text.find("[")
    return None if start < 0 else _decoded(_closed(text, start))


def _closed(text: str, start: int) -> str:
    """Return ``text`` from ``start`` up to the last unambiguous position, followed by the brackets that close it."""
    open_, wants_key = list[str](), False
    at = certain_to = start
    while at < len(text) and (token := _TOKEN.match(text, at)):
        mark, content, quote, word = token.groups()
        at = token.end()
        if mark in ("{", "["):
            open_.append(mark)
            wants_key = mark == "{"
        elif mark in ("}", "]"):
            if not open_:
                break
            open_.pop()
            wants_key = False
        elif mark == ",":
            wants_key = bool(open_) and open_[-1] == "{"
            continue
        elif mark == ":":
            wants_key = False
            continue
        elif wants_key:
            continue  # a key without its value
        elif content is not None and quote is None:
            whole = _WHOLE_UNITS.match(content)
            assert whole is not None
            return f'{text[start : token.start(2) + whole.end()]}"{_closing(open_)}'
        elif word is not None and at == len(text):
            break  # 1 may become 10
        certain_to = at  # tokens that are not certain yet neither open nor close anything
        if not open_:
            break
    return "" if certain_to == start else text[start:certain_to] + _closing(open_)


def _closing(open_: list[str]) -> str:
    return "".join(_CLOSING[each] for each in reversed(open_))


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text) if text else None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
