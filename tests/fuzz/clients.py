"""The server side of each dialect, the ``llm_runtime`` object, and WebSocket messages: what clients send.

And what is made of it: a request that was taken can be measured, keyed and put to any vendor, or is refused in words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from fuzz.steps import step
from fuzz.target import Target
from fuzz.vendors import CLIENTS, LONGEST, SERVERS
from llm_actors.cache.key import key_of
from llm_protocol.codec.chat_adapter import spoken
from llm_protocol.dialect import ServerDialect
from llm_protocol.errors import BadRequestError, UnsupportedError
from llm_protocol.estimate import TokenEstimator
from llm_protocol.policy import Policy
from llm_protocol.requests import AnyRequest
from llm_runtime.server.bodies import admitted
from llm_runtime.server.client_events import (
    Cancel,
    ClientEventHead,
    Resume,
    check_lane,
    encode_refusal,
    read,
    read_head,
    unknown_type,
)
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.stored import RESPONSES
from support.transcripts import FOLDER, Recording

CHAT, RESPONSE, CLAUDE, GEMINI, COHERE = SERVERS
ENDPOINTS: tuple[tuple[ServerDialect, str], ...] = (
    (CHAT, "/v1/chat/completions"),
    (CHAT, "/v1/completions"),
    (CHAT, "/v1/embeddings"),
    (CHAT, "/v1/images/generations"),
    (CHAT, "/v1/code/generations"),
    (RESPONSE, "/v1/responses"),
    (CLAUDE, "/v1/messages"),
    (GEMINI, "/v1beta/models/m:generateContent"),
    (GEMINI, "/v1beta/models/m:streamGenerateContent?alt=sse"),
    (GEMINI, "/v1beta/models/m:batchEmbedContents"),
    (GEMINI, ""),
    (COHERE, "/v2/chat"),
    (COHERE, "/v2/embed"),
)
RECORDED = {"openai": (0, 5), "cerebras": (0,), "anthropic": (6,), "gemini": (7, 8), "cohere": (11,)}
REFUSALS = (BadRequestError, UnsupportedError)


def check(data: bytes) -> None:
    """Read, or refused with a typed error; then the same of all that follows."""
    chosen, body = (data or b"\0")[0], data[1:]
    if chosen >= len(ENDPOINTS):
        check_message(body)
        return
    server, path = ENDPOINTS[chosen]
    if not path:
        path, _, text = body.decode("latin-1").partition("\n")
        path, body = f"/v1beta/models/{path}", text.encode("latin-1")
    try:
        inbound = step(admitted, "caller", step(server.decode_request, path, body))
    except REFUSALS as exc:
        json.loads(step(server.encode_error, exc.failure).body)
    else:
        check_request(inbound.request)


def check_request(request: AnyRequest) -> None:
    step(TokenEstimator().estimate, "m", request)
    step(key_of, request, (), request.policy or Policy())
    for client in CLIENTS:
        try:
            wire = step(client.encode_request, step(spoken, request.to("m"), client.request_types), stream=True)
        except REFUSALS:
            continue
        assert re.fullmatch(r"[!-~]+", wire.path), "it would not be one request"
        json.loads(wire.body)


def check_message(body: bytes) -> None:
    """What a session makes of a message; wsproto takes only UTF-8."""
    text, head = body.decode("utf-8", "ignore"), ClientEventHead()
    try:
        head = step(read_head, text)
        check_lane(head.stream_id)
        match head.type:
            case "response.create":
                create = step(RESPONSES.decode_create, text)
                check_request(admitted("caller", create.inbound).request)
            case "response.resume":
                step(read, text, Resume)
            case "response.cancel":
                step(read, text, Cancel)
            case _:
                raise unknown_type(head)
    except HttpError as refused:
        json.loads(step(encode_refusal, refused, head.stream_id, head.event_id))
    except REFUSALS as exc:
        json.loads(RESPONSES.error_event(exc.failure, stream_id=head.stream_id, event_id=head.event_id))


POLICY = {"candidates": ["a/m"], "strategy": "panel", "shares": {"a/m": 1}, "timeouts": {"idle": 5}, "members": 2}
POLICY |= {"attempts": {"max": 1, "wait_min_s": 3}, "cache": "read", "share_context": {"a/m": ["x"]}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
BY_HAND: Sequence[tuple[int, object]] = (
    (0, {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": TOOLS, "llm_runtime": POLICY}),
    (1, {"model": "m", "prompt": ["x"], "suffix": "y", "stream": True, "stop": ["a"], "llm_runtime": POLICY}),
    (2, {"model": "m", "input": ["x", "y"], "dimensions": 3, "encoding_format": "base64", "x": [[[]]]}),
    (3, {"model": "m", "prompt": "x", "n": 2, "size": "1x1", "response_format": "b64_json"}),
    (4, {"model": "m", "instruction": "x", "language": "c", "files": [{"path": "a", "content": "b"}], "stream": True}),
    (5, {"input": "x", "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function"}]}}),
    (6, {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
    (7, {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"topK": 1}, "llm_runtime": POLICY}),
    (9, {"requests": [{"content": {"parts": [{"text": "x"}]}}]}),
    (11, {"model": "m", "messages": [{"role": "user", "content": "x"}], "k": 5, "documents": ["a"]}),
    (12, {"model": "m", "texts": ["x"], "input_type": "search_query", "embedding_types": ["float"]}),
    (99, {"type": "response.create", "stream_id": "a", "event_id": "e", "input": "x", "llm_runtime": POLICY}),
    (99, {"type": "response.cancel", "response_id": "resp_1"}),
    (99, {"type": "response.resume", "response_id": "resp_1", "starting_after": 3}),
)


def seeds() -> list[bytes]:
    """Recorded requests, where they are present, and some by hand."""
    found = [bytes((server,)) + json.dumps(body).encode() for server, body in BY_HAND]
    found.append(b'\x0am:embedContent?alt=sse\n{"content": {"parts": [{"text": "x"}]}}')
    for vendor, servers in RECORDED.items():
        for path in sorted((FOLDER / vendor).glob("*.json")):
            asked = json.dumps(Recording(path).asked).encode()
            if asked != b"null" and len(asked) <= LONGEST:
                found += [bytes((server,)) + asked for server in servers]
    return found


CLIENT_REQUESTS = Target("clients", check, seeds, prefix=1)
