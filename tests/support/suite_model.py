"""A model for other people's test suites: it calls the tool that it is given, and writes the JSON that is asked for."""

from __future__ import annotations

import json
from typing import Any

from llm_actors.run import Run
from llm_protocol.content import Tool, ToolCall, ToolResult
from llm_protocol.embedding import Embedding
from llm_protocol.events import Embedded, Finished, ItemDone, ItemStarted, Started, ToolCallDelta, UsageReported
from llm_protocol.requests import ChatRequest, EmbeddingRequest
from llm_protocol.response import FinishReason, Usage
from support.server import add_text, end_text


async def suite_model(run: Run) -> None:
    """Answer in the way that the request allows."""
    request = run.request
    if isinstance(request, EmbeddingRequest):
        run.log.append(Started(model=request.model))
        run.log.append(Embedded(tuple(Embedding.of((float(len(each)), 0.5)) for each in request.inputs)))
        run.log.append(UsageReported(Usage(input_tokens=3)))
        run.finish(Finished(reason=FinishReason.STOP), run.folded())
        return
    assert isinstance(request, ChatRequest)
    answered = any(isinstance(part, ToolResult) for part in request.messages[-1].content)
    choice = request.tool_choice
    if (tool := _tool(request)) is not None and not (answered and (choice is None or choice.mode == "auto")):
        _call(run, tool)
        return
    text = _text(request)
    run.log.append(Started(model=request.model))
    run.log.append(ItemStarted(index=0, kind="text"))
    for at in range(0, len(text), 4):
        add_text(run, text[at : at + 4])
    end_text(run)


def _text(request: ChatRequest) -> str:
    form = request.response_format
    if form is not None and form.schema:
        return json.dumps(_example(form.schema))
    # Where a vendor has no JSON mode, the runtime tells the model in words.
    if (form is not None and form.type == "json") or any("JSON" in message.text for message in request.messages):
        return json.dumps({"setup": "a", "punchline": "b"})
    return "Hello there"


def _tool(request: ChatRequest) -> Tool | None:
    choice = request.tool_choice
    if choice is not None and choice.mode == "none":
        return None
    tools = [tool for tool in request.tools if isinstance(tool, Tool)]
    named = [tool for tool in tools if choice is not None and tool.name == choice.name]
    return next(iter(named or tools), None)


def _call(run: Run, tool: Tool) -> None:
    arguments = json.dumps(_example(tool.parameters))
    run.log.append(Started(model=run.request.model))
    run.log.append(ItemStarted(index=0, kind="tool_call", id="call_1", name=tool.name))
    for start in range(0, len(arguments), 5):
        run.log.append(ToolCallDelta(0, arguments[start : start + 5]))
    run.log.append(ItemDone(index=0, part=ToolCall(id="call_1", name=tool.name, arguments=arguments)))
    run.log.append(UsageReported(Usage(input_tokens=3, output_tokens=2)))
    run.finish(Finished(reason=FinishReason.TOOL_CALLS), run.folded())


def _example(schema: Any, top: Any = None) -> Any:
    """A value of a JSON schema."""
    top = schema if top is None else top
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _example((top.get("$defs") or top.get("definitions") or {})[name], top)
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return _example(schema[several][0], top)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object" | None:
            return {name: _example(inner, top) for name, inner in (schema.get("properties") or {}).items()}
        case "array":
            return [_example(schema.get("items") or {"type": "string"}, top)]
        case "integer" | "number":
            return 3
        case "boolean":
            return True
        case _:
            return "x"
