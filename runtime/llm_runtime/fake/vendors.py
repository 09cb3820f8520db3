"""Which vendor's wire a request speaks. The path tells; where one path serves several vendors, a mount prefix
(``/cohere/v1/models``), the headers or the query do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import NamedTuple
from urllib.parse import parse_qs, unquote

from llm_protocol.dialect import ServerDialect
from llm_protocol.requests import LLMProvider
from llm_protocol.wires import server_dialect

KINDS = (
    LLMProvider.OPENAI,
    LLMProvider.ANTHROPIC,
    LLMProvider.GEMINI,
    LLMProvider.COHERE,
    LLMProvider.CEREBRAS,
    LLMProvider.OPENAI_COMPATIBLE,
)
"""The vendors that can be faked. Each is also a mount: the first segment of a path."""

_OPENAI = (LLMProvider.OPENAI, LLMProvider.OPENAI_COMPATIBLE)
_FAMILY = (*_OPENAI, LLMProvider.CEREBRAS)
_COHERE_QUERY = frozenset(("page_size", "page_token", "endpoint", "default_only"))


class Purpose(Enum):
    """What a path is for."""

    ASK = "ask"
    MODELS = "models"
    MODEL = "model"
    WARM_UP = "warm_up"


class Place(NamedTuple):
    """Where a request has come to. ``path`` is without the mount; ``model`` is set for `Purpose.MODEL`."""

    kind: LLMProvider
    purpose: Purpose
    dialect: ServerDialect
    path: str
    model: str = ""


class _Row(NamedTuple):
    """One path. Of its vendors the first is meant where nothing says which."""

    method: str
    pattern: re.Pattern[str]
    kinds: tuple[LLMProvider, ...]
    purpose: Purpose = Purpose.ASK


def _row(method: str, pattern: str, *kinds: LLMProvider, purpose: Purpose = Purpose.ASK) -> _Row:
    return _Row(method, re.compile(pattern), kinds, purpose)


_ROWS = (
    _row("POST", r"/v1/(chat/)?completions", *_FAMILY),
    _row("POST", r"/v1/(embeddings|images/generations)", *_OPENAI),
    _row("POST", r"/v1/responses", *_OPENAI),
    _row("POST", r"/v1/messages", LLMProvider.ANTHROPIC),
    _row("POST", r"/v1(beta)?/(models|tunedModels)/[^/]+:\w+", LLMProvider.GEMINI),
    _row("POST", r"/v2/(chat|embed)", LLMProvider.COHERE),
    _row("GET", r"/v1beta/models", LLMProvider.GEMINI, purpose=Purpose.MODELS),
    _row("GET", r"/v1beta/models/(?P<model>.+)", LLMProvider.GEMINI, purpose=Purpose.MODEL),
    _row("GET", r"/v1/models", *KINDS, purpose=Purpose.MODELS),
    _row("GET", r"/v1/models/(?P<model>.+)", *KINDS, purpose=Purpose.MODEL),
    _row("GET", r"/v1/tcp_warming", LLMProvider.CEREBRAS, purpose=Purpose.WARM_UP),
)


def split_mount(path: str) -> tuple[LLMProvider | None, str]:
    """The vendor that the path's first segment names, if it does, and the path below it."""
    name, slash, rest = path[1:].partition("/")
    return (LLMProvider(name), slash + rest) if name in KINDS else (None, path)


def guess_kind(path: str, query: str, headers: Mapping[str, str]) -> LLMProvider:
    """The vendor whose client this looks like, whatever the path is for."""
    if "anthropic-version" in headers or path.startswith("/v1/messages"):
        return LLMProvider.ANTHROPIC
    if "x-goog-api-key" in headers or "x-goog-api-client" in headers or path.startswith("/v1beta/"):
        return LLMProvider.GEMINI
    if headers.get("x-fern-sdk-name") == "cohere" or path.startswith("/v2/") or _COHERE_QUERY & parse_qs(query).keys():
        return LLMProvider.COHERE
    if headers.get("user-agent", "").lower().startswith("cerebras"):
        return LLMProvider.CEREBRAS
    return LLMProvider.OPENAI


def locate(
    method: str, target: str, headers: Mapping[str, str], only: LLMProvider | None = None
) -> Place | LLMProvider:
    """Where a request has come to, or the vendor in whose shape it is to be told that there is nothing. With ``only``
    there is one vendor.
    """
    path, _, query = target.partition("?")
    mount, path = split_mount(path)
    guess = guess_kind(path, query, headers)
    asked = only or mount
    for row in _ROWS:
        found = row.pattern.fullmatch(path.rstrip("/"))
        if found is None or row.method != method:
            continue
        kind = asked or (guess if guess in row.kinds else row.kinds[0])
        if kind in row.kinds:
            model = unquote(found.groupdict().get("model") or "")
            return Place(kind, row.purpose, dialect_of(kind, path), f"{path}?{query}" if query else path, model)
    return asked or guess


def dialect_of(kind: LLMProvider, path: str) -> ServerDialect:
    """The server side of ``kind`` at ``path``."""
    return _responses() if kind in _OPENAI and path.rstrip("/").endswith("/responses") else _server(kind)


_server = cache(server_dialect)


@cache
def _responses() -> ServerDialect:
    from llm_protocol.wires.responses import OpenAIResponsesServer

    return OpenAIResponsesServer()
