"""What the vendors' SDKs know that the wires lose: `bin/vendor-drift`'s comparison.

Everything goes through a wire as it would through the daemon: a request is read by the server side and written by the
client side of the same dialect, an answer the other way. What does not come out is lost. Words of closed lists must be
in the wire's own code or tables.
"""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from llm_protocol.dialect import ClientDialect, ClientRequest, ServerDialect, WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.events import Event, Failed, Finished
from llm_protocol.fold import Fold
from llm_protocol.lifecycle import SHUTDOWNS
from llm_protocol.model_table import ROWS
from llm_protocol.response import LLMResponse
from llm_protocol.vendors import VENDORS
from llm_protocol.wires.anthropic import Anthropic, AnthropicServer
from llm_protocol.wires.cohere import Cohere, CohereServer
from llm_protocol.wires.gemini import Gemini, GeminiServer
from llm_protocol.wires.openai_chat import CEREBRAS, OPENAI, OpenAIChat, OpenAIChatServer
from llm_protocol.wires.responses import OpenAIResponses, OpenAIResponsesServer

HERE = Path(__file__).parent
SURFACE = HERE / "vendor_surface.json"
EXPLAINED = HERE / "vendor_drift.toml"
WIRES = HERE.parents[1] / "protocol" / "llm_protocol"

HI = [{"role": "user", "content": "hi"}]
PARTS = [{"role": "user", "parts": [{"text": "hi"}]}]


class Endpoint(NamedTuple):
    """One endpoint: both sides of its wire, and a request that has only what it must have."""

    client: ClientDialect
    server: ServerDialect
    path: str
    body: dict[str, Any]
    inside: str = ""
    """The object of the request's body that holds the parameters."""


ENDPOINTS = {
    "openai chat": Endpoint(OpenAIChat(OPENAI), OpenAIChatServer(OPENAI), "/v1/chat/completions", {"messages": HI}),
    "openai responses": Endpoint(OpenAIResponses(), OpenAIResponsesServer(), "/v1/responses", {"input": "hi"}),
    "openai embeddings": Endpoint(OpenAIChat(OPENAI), OpenAIChatServer(OPENAI), "/v1/embeddings", {"input": "hi"}),
    "openai images": Endpoint(OpenAIChat(OPENAI), OpenAIChatServer(OPENAI), "/v1/images/generations", {"prompt": "hi"}),
    "anthropic messages": Endpoint(Anthropic(), AnthropicServer(), "/v1/messages", {"messages": HI, "max_tokens": 9}),
    "anthropic beta messages": Endpoint(
        Anthropic(), AnthropicServer(), "/v1/messages", {"messages": HI, "max_tokens": 9}
    ),
    "gemini generationConfig": Endpoint(
        Gemini(), GeminiServer(), "/v1beta/models/m:generateContent", {"contents": PARTS}, "generationConfig"
    ),
    "gemini generateContent": Endpoint(
        Gemini(), GeminiServer(), "/v1beta/models/m:generateContent", {"contents": PARTS}
    ),
    "cohere chat": Endpoint(Cohere(), CohereServer(), "/v2/chat", {"messages": HI}),
    "cohere embed": Endpoint(
        Cohere(),
        CohereServer(),
        "/v2/embed",
        {"texts": ["hi"], "input_type": "search_query", "embedding_types": ["float"]},
    ),
    "cerebras chat": Endpoint(
        OpenAIChat(CEREBRAS), OpenAIChatServer(CEREBRAS), "/v1/chat/completions", {"messages": HI}
    ),
}


def report(surface: dict[str, Any]) -> list[str]:
    """A line for each difference that is not explained, and for each explanation of a difference that is none."""
    explained: dict[str, str] = tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))
    found = dict(differences(surface))
    lines = [f"{name}: {what}" for name, what in found.items() if not is_explained(name, explained)]
    stale = [glob for glob in explained if not any(fnmatchcase(name, glob) for name in found)]
    return [*lines, *(f"explained, but there is no such difference: {glob}" for glob in stale)]


def is_explained(name: str, explained: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in explained)


def differences(surface: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each difference by name, with what is wrong."""
    yield from _lost_parameters(surface["parameters"])
    yield from _lost_fields(surface["answers"])
    yield from _lost_in_streams(surface["events"], surface["answers"])
    yield from _unknown_words(surface["words"])


# ---------------------------------------------------------------- requests

HEADERS = {"cf_ray", "x_amz_cf_id", "x_delay_time", "workspace_id"}
"""Parameters that their SDK sends as header fields, which stay here."""
OTHER_NAMES = {"max_tokens": "max_completion_tokens", "max_output_tokens": "max_tokens", "user": "safety_identifier"}


def _lost_parameters(parameters: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for name, known in parameters.items():
        endpoint = ENDPOINTS[name]
        for parameter, value in known.items():
            if parameter in endpoint.body or parameter == "model":
                continue
            problem = "is a header" if parameter in HEADERS else _problem(endpoint, parameter, value)
            if problem is not None:
                yield f"{name} parameter {parameter}", problem


def _problem(endpoint: Endpoint, parameter: str, value: Any) -> str | None:
    body = {"model": "m", **endpoint.body}
    if endpoint.inside:
        body[endpoint.inside] = {parameter: value}
    else:
        body[parameter] = value
    try:
        inbound = endpoint.server.decode_request(endpoint.path, json.dumps(body).encode())
        wire = endpoint.client.encode_request(inbound.request, stream=inbound.stream)
    except LLMClientError as exc:
        return f"refused: {exc.failure.message}"
    sent = json.loads(wire.body)
    if endpoint.inside:
        sent = sent.get(endpoint.inside, {})
    return None if parameter in sent or OTHER_NAMES.get(parameter) in sent else "does not arrive"


# ---------------------------------------------------------------- answers


UNREAL = {
    # The old form of the first tool call stands in its place, never beside it.
    "openai chat": (("choices", 0, "message", "function_call"), ("choices", 0, "delta", "function_call")),
    # An answer with an error is none.
    "openai responses": (("error",), ("incomplete_details",)),
    "cohere chat": (("delta", "error"),),
    "gemini generateContent": (("promptFeedback", "blockReason"),),
}
"""What a sample has because it has every field, and no vendor says in one breath."""


def real_sample(name: str, sample: Any) -> Any:
    """The sample without what is in `UNREAL`."""
    real = json.loads(json.dumps(sample))
    for path in UNREAL.get(name, ()):
        inner = real
        for step in path[:-1]:
            found = inner[step] if isinstance(step, int) or step in inner else None
            inner = found if found is not None else {}
        inner.pop(path[-1], None)
    return real


def _lost_fields(answers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, sample in answers.items():
        endpoint, answer = ENDPOINTS[name], real_sample(name, sample)
        inbound = endpoint.server.decode_request(endpoint.path, json.dumps({"model": "m", **endpoint.body}).encode())
        body = json.dumps(answer).encode()
        response = _folded(endpoint.client.decode_response(inbound.request, WireResponse(200, (), body)))
        if isinstance(response, str):
            yield f"{name} answer", f"cannot be read: {response}"
            continue
        told = json.loads(endpoint.server.encode_response(inbound, response))
        for path in missing_fields(answer, told):
            yield f"{name} answer {path}", "does not come back"


def _folded(events: list[Event]) -> LLMResponse | str:
    fold = Fold().add_all(events)
    if isinstance(fold.end, Failed):
        return fold.end.failure.message
    return fold.response(request_id="r", response_id="id", provider="p", model="m")


def missing_fields(said: Any, told: Any) -> list[str]:
    """The fields that are not there, without those inside of them."""
    there = _paths(told)
    gone = {path for path in _paths(said) if path not in there}
    return sorted(path for path in gone if not any(path.startswith((f"{other}.", f"{other}[")) for other in gone))


def _paths(value: Any, path: str = "") -> set[str]:
    """The places of all fields. Members of lists go by their type, where they have one."""
    if isinstance(value, dict):
        here = {f"{path}.{name}".lstrip(".") for name in value}
        return here.union(*(_paths(inner, f"{path}.{name}".lstrip(".")) for name, inner in value.items()))
    if isinstance(value, list):
        return set().union(*(_paths(inner, f"{path}[{type_of(inner)}]") for inner in value))
    return set()


def type_of(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else ""


# ---------------------------------------------------------------- streams


def _lost_in_streams(events: dict[str, list[Any]], answers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, known in events.items():
        endpoint = ENDPOINTS[name]
        path = endpoint.path.replace(":generateContent", ":streamGenerateContent?alt=sse")
        asked = json.dumps({"model": "m", **endpoint.body, "stream": True, **STREAM_OPTIONS.get(name, {})}).encode()
        inbound = endpoint.server.decode_request(path, asked)
        for stream, probes in streams_of(name, known, answers):
            yield from lost_in_stream(name, probes, _relayed(endpoint, inbound, stream))


def streams_of(name: str, known: list[Any], answers: dict[str, Any]) -> list[tuple[list[Any], list[Any]]]:
    """Whole streams of an endpoint, each with the events whose fields are looked for."""
    found: list[tuple[list[Any], list[Any]]] = []
    for stream, probe in STREAMS[name]([real_sample(name, each) for each in known], answers):
        if found and found[-1][0] is stream:
            found[-1][1].append(probe)
        else:
            found.append((stream, [probe]))
    return found


def lost_in_stream(name: str, probes: list[Any], told: list[Any]) -> Iterator[tuple[str, str]]:
    """The fields of ``probes`` that a client that was ``told`` these events did not get."""
    everything = Together(told)
    for probe in probes:
        there = Together([each for each in told if _is_like(each, probe)]) if name == "openai responses" else everything
        for path in missing_fields(probe, there):
            yield _name_in_stream(name, probe, path), "does not come back"


def _name_in_stream(name: str, probe: Any, path: str) -> str:
    """The name of a difference. In an event that holds an answer, or an item of one, it is that of the answer's."""
    match type_of(probe):
        case "response.completed":
            return f"{name} answer {path.removeprefix('response.')}"
        case "response.output_item.done":
            return f"{name} answer output[{type_of(probe['item'])}].{path.removeprefix('item.')}"
        case kind if name == "gemini generateContent":
            return f"{name} answer {path}"
        case kind:
            return f"{name} event {kind or 'chunk'} {path}"


def _is_like(event: Any, probe: Any) -> bool:
    """Whether both are of one type, and about items of one type."""
    return type_of(event) == type_of(probe) and type_of(event.get("item")) == type_of(probe.get("item"))


def _relayed(endpoint: Endpoint, inbound: ClientRequest, stream: list[Any]) -> list[Any]:
    """All that a client is told of a stream."""
    body = b"".join(frame_of(event) for event in stream)
    decoder = endpoint.client.stream_decoder(inbound.request)
    events = [*decoder.feed(body), *decoder.end()]
    response = Fold().add_all(events).response(request_id="r", response_id="id", provider="p", model="m")
    if events and isinstance(events[-1], Finished | Failed):  # as a run log has it
        events[-1] = msgspec.structs.replace(events[-1], response=response)
    encoder = endpoint.server.response_encoder(inbound, "id")
    frames = [*encoder.start(), *encoder.encode(events)]
    return [json.loads(frame.data) for frame in frames if frame.data.startswith(b"{")]


class Together(dict[str, Any]):
    """Paths of several objects as if they were one."""

    def __init__(self, told: list[Any]) -> None:
        super().__init__()
        for each in told:
            _lay_over(self, each)


def _lay_over(into: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _lay_over(into[name], value)
        elif isinstance(value, list):
            into[name] = [*into.get(name, []), *value] if isinstance(into.get(name), list) else list(value)
        elif value is not None or name not in into:
            into[name] = dict(value) if isinstance(value, dict) else value


def frame_of(event: Any) -> bytes:
    if event == "[DONE]":
        return b"data: [DONE]\n\n"
    name = f"event: {event['type']}\n" if type_of(event) else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()


Streams = Iterator[tuple[list[Any], Any]]


def _chat_streams(known: list[Any], _: dict[str, Any]) -> Streams:
    for chunk in known:
        yield [chunk, "[DONE]"], chunk


BLOCK_OF_DELTA = {
    "text_delta": {"type": "text", "text": ""},
    "citations_delta": {"type": "text", "text": ""},
    "input_json_delta": {"type": "tool_use", "id": "id x", "name": "name x", "input": {}},
    "thinking_delta": {"type": "thinking", "thinking": "", "signature": ""},
    "signature_delta": {"type": "thinking", "thinking": "", "signature": ""},
    "compaction_delta": {"type": "compaction", "content": None, "encrypted_content": None},
}


def _anthropic_streams(known: list[Any], _: dict[str, Any]) -> Streams:
    start = next(each for each in known if each["type"] == "message_start")
    start = {**start, "message": {**start["message"], "content": [], "stop_reason": None, "stop_details": None}}
    end = next(each for each in known if each["type"] == "message_delta")
    stop = {"type": "message_stop"}
    for probe in known:
        match probe["type"]:
            case "message_start" | "message_delta" | "message_stop":
                yield [start, end, stop], (start if probe["type"] == "message_start" else probe)
            case "content_block_start":
                block = {**probe, "content_block": _begun(probe["content_block"])}
                yield [start, block, {"type": "content_block_stop", "index": 0}, end, stop], block
            case "content_block_delta":
                block = {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": BLOCK_OF_DELTA[type_of(probe["delta"])],
                }
                yield [start, block, probe, {"type": "content_block_stop", "index": 0}, end, stop], probe


def _begun(block: dict[str, Any]) -> dict[str, Any]:
    """A block as a stream begins it: what comes in deltas is empty."""
    if type_of(block) not in ("text", "thinking", "tool_use"):
        return block
    empty = {"text": "", "thinking": "", "signature": "", "input": {}, "citations": []}
    return {name: empty.get(name, value) for name, value in block.items()}


def _cohere_streams(known: list[Any], _: dict[str, Any]) -> Streams:
    """A text with its citations, or a plan with its call; of a block's two fields the one of its type."""
    events = {each["type"]: each for each in known}
    for name in ("content-start", "content-delta"):
        events[name]["delta"]["message"]["content"].pop("thinking", None)
    said = ("content-start", "content-delta", "citation-start", "citation-end", "content-end")
    called = ("tool-plan-delta", "tool-call-start", "tool-call-delta", "tool-call-end")
    for inner in (said, called):
        stream = [events[name] for name in ("message-start", *inner, "message-end")]
        for probe in stream:
            yield stream, probe


def _responses_streams(_: list[Any], answers: dict[str, Any]) -> Streams:
    """One answer with an item of each kind, whole as it begins. What is whole is looked for: items that are done, and
    the answer. Not what begins, and not how far a hosted tool has got.
    """
    answer = real_sample("openai responses", answers["openai responses"])
    begun = {**answer, "status": "in_progress", "output": []}
    events: list[Any] = [{"type": "response.created", "response": begun}]
    for index, item in enumerate(answer["output"]):
        about = {"output_index": index, "item": item}
        events += [{"type": f"response.output_item.{step}", **about} for step in ("added", "done")]
    events.append({"type": "response.completed", "response": answer})
    events = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    for probe in events:
        if probe["type"] in ("response.output_item.done", "response.completed"):
            yield events, probe


def _gemini_streams(known: list[Any], _: dict[str, Any]) -> Streams:
    for chunk in known:
        yield [chunk], chunk


STREAMS: dict[str, Callable[[list[Any], dict[str, Any]], Streams]] = {
    "openai chat": _chat_streams,
    "cerebras chat": _chat_streams,
    "anthropic messages": _anthropic_streams,
    "anthropic beta messages": _anthropic_streams,
    "cohere chat": _cohere_streams,
    "openai responses": _responses_streams,
    "gemini generateContent": _gemini_streams,
}
"""How the events of an endpoint stand in streams: each with the one whose fields are looked for."""

STREAM_OPTIONS: dict[str, dict[str, Any]] = {"openai chat": {"stream_options": {"include_usage": True}}}
"""What a stream must be asked for with."""

# ---------------------------------------------------------------- words

FOLDERS = {"openai": ("openai_chat", "responses"), "cerebras": ("openai_chat",)}


def _unknown_words(words: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    for name, known in words.items():
        vendor, _, what = name.partition(" ")
        for word in known:
            is_known = _is_known_model(vendor, word) if what.endswith("model") else word in _vocabulary(vendor)
            if not is_known:
                yield f"{name} {word}", "no table knows it"


@cache
def _vocabulary(vendor: str) -> frozenset[str]:
    """All words in the code of a vendor's wires and of what they share."""
    files = [*WIRES.glob("*.py"), *WIRES.glob("codec/*.py"), *WIRES.glob("prices*.json")]
    for folder in FOLDERS.get(vendor, (vendor,)):
        files += WIRES.glob(f"wires/{folder}/*.py")
    found: set[str] = set()
    for file in files:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            found.update(text.split('"'))
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update((node.value, *node.value.split()))
    return frozenset(found)


def _is_known_model(vendor: str, model: str) -> bool:
    """Whether a row for less than everything is about it."""
    import re

    rules = any(pattern not in ("", "claude") and re.match(pattern, model) for pattern, _ in ROWS.get(vendor, ()))
    defaults = VENDORS[vendor].default_models.values()
    chosen = any(re.fullmatch(pattern, model) for patterns in defaults for pattern in patterns)
    return rules or chosen or model in SHUTDOWNS.get(vendor, {})
