"""Adapt tools, tool choice and response format. What is done with them depends on their values, not only on the
target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from llm_protocol.adjustments import Adjustment
from llm_protocol.codec.fields import bad_request, unsupported
from llm_protocol.content import HostedTool, JsonObject, Message, ResponseFormat, Text, Tool, ToolCall, ToolChoice
from llm_protocol.parameters.custom_tools import CHAT, as_function, read_tool, write_tool
from llm_protocol.parameters.hosted_tools import fit_hosted, name_of
from llm_protocol.parameters.models import ModelTakes
from llm_protocol.parameters.names import accepted, is_accepted
from llm_protocol.parameters.namespaces import names_in
from llm_protocol.parameters.requested import value_at, without_value
from llm_protocol.parameters.targets import RequestTarget
from llm_protocol.requests import ChatRequest

GEMINI: Final = "gemini"
_ALLOWED: Final = "toolConfig.functionCallingConfig.allowedFunctionNames"

JSON_ORDER: Final = (
    "Answer with one JSON object and nothing else: no explanation, no markdown fence. The answer must be valid JSON."
)
"""The instruction for a model whose vendor has no JSON mode."""


class Tools(NamedTuple):
    """The adapted tools. ``custom``: names of functions that stand for custom tools. ``names``: the client's name of
    each renamed tool, and its new name.
    """

    tools: tuple[Tool | HostedTool, ...]
    choice: ToolChoice | None
    custom: frozenset[str] = frozenset()
    names: Mapping[str, str] = {}
    own_choice: JsonObject | None = None
    """The tool choice in the target's own form, if ``choice`` cannot express it."""
    adjusted: tuple[Adjustment, ...] = ()


# ---------------------------------------------------------------- tools


def fit_tools(
    request: ChatRequest, target: RequestTarget, takes: ModelTakes, places: Sequence[int] | None = None
) -> Tools:
    """Adapt the tools and the tool choice. ``places``: for each tool of ``request``, its position in the client's
    request; ``None`` if no tool was moved. Raises `UnsupportedError` for a choice that cannot be kept.
    """
    choice = _choice(request)
    if not request.tools:
        return Tools((), choice, names=_names([], request.messages, target))
    if choice is not None and choice.mode in ("required", "named") and not takes.forced_tools:
        raise unsupported(
            "tool_choice", f"{request.model} cannot be forced to call a tool; use tool_choice auto or none"
        )
    adjusted: list[Adjustment] = []
    custom: set[str] = set()
    allowed = _allowed(request, target)
    taken = {tool.name for tool in allowed if isinstance(tool, Tool)}
    tools = [
        _tool(tool, at if places is None else places[at], target, taken, custom, adjusted)
        for at, tool in enumerate(allowed)
    ]
    offered = _alike([tool for tool in tools if tool is not None], target, adjusted)
    _check(choice, offered, target)
    if choice is not None and choice.mode == "named" and not target.limits.names_one_tool:
        adjusted.append(Adjustment("tool_choice", "emulated", "required, of the one tool that is offered"))
    names = _names(offered, request.messages, target)
    adjusted += [Adjustment(f"tools.{name}", "rewritten", used) for name, used in names.items()]
    if names:
        offered = [_renamed(tool, names) for tool in offered]
        if choice is not None and choice.name in names:
            choice = ToolChoice(choice.mode, names[choice.name])
    choice, own_choice = _in_own_form(choice, offered, target)
    return Tools(tuple(offered), choice, frozenset(custom), names, own_choice, tuple(adjusted))


def _tool(
    tool: Tool | HostedTool,
    at: int,
    target: RequestTarget,
    taken: set[str],
    custom: set[str],
    adjusted: list[Adjustment],
) -> Tool | HostedTool | None:
    """The tool in the target's form; ``None`` if it has no equivalent. Records the change. ``taken``: the names of the
    functions.
    """
    if isinstance(tool, Tool):
        return tool
    own = read_tool(tool)
    if own is not None and target.has_custom_tools:
        return write_tool(own, target.wire)
    if own is not None:
        custom.add(own.name)
        adjusted.append(Adjustment(f"tools[{at}]", "emulated", "a function with one text argument"))
        return as_function(own)
    hosted = fit_hosted(tool, target)
    if hosted is not None and hosted is not tool and name_of(hosted) in taken:
        hosted = None
    if hosted is None:
        adjusted.append(Adjustment(f"tools[{at}]", "left_out"))
    return hosted


def _check(choice: ToolChoice | None, tools: list[Tool | HostedTool], target: RequestTarget) -> None:
    """Refuse a tool choice among tools that the target does not support, and more tools than it accepts."""
    if choice is not None and choice.mode == "required" and not tools:
        raise unsupported("tools", f"{target.who} supports none of the tools, but tool_choice requires a call")
    if target.limits.tools is not None and len(tools) > target.limits.tools:
        raise unsupported("tools", f"{target.who} accepts at most {target.limits.tools} tools, not {len(tools)}")
    if choice is not None and choice.mode == "named":
        _check_named(choice, tools)


def _in_own_form(
    choice: ToolChoice | None, tools: list[Tool | HostedTool], target: RequestTarget
) -> tuple[ToolChoice | None, JsonObject | None]:
    """The tool choice. A custom tool is named in the form of the target's wire. ``None`` without tools."""
    if choice is None or not tools:
        return None, None
    if choice.mode != "named" or not any(_is_custom(tool, choice.name) for tool in tools):
        return choice, None
    named = {"name": choice.name}
    return None, {"type": "custom", **({"custom": named} if target.wire == CHAT else named)}


def _is_custom(tool: Tool | HostedTool, name: str | None) -> bool:
    custom = read_tool(tool)
    return custom is not None and custom.name == name


def _alike(
    tools: list[Tool | HostedTool], target: RequestTarget, adjusted: list[Adjustment]
) -> list[Tool | HostedTool]:
    """Give all tools the same strictness, for vendors with one setting for all: whether calls must match their
    schemas.
    """
    strictness = {tool.strict for tool in tools if isinstance(tool, Tool)} - {None}
    if target.limits.strict_apart or len(strictness) < 2:
        return tools
    adjusted.append(Adjustment("tools.strict", "left_out"))
    return [msgspec.structs.replace(tool, strict=None) if isinstance(tool, Tool) else tool for tool in tools]


def _choice(request: ChatRequest) -> ToolChoice | None:
    """The tool choice. A form that only one wire has is converted if it names a tool."""
    if request.tool_choice is not None:
        return request.tool_choice
    odd = request.parameters.extra.get(request.parameters.wire or "", {}).get("tool_choice")
    match odd:
        case {"type": "custom", "custom": {"name": str(name)}} | {"type": "custom", "name": str(name)}:
            return ToolChoice("named", name)
        case _:
            return None


def _allowed(request: ChatRequest, target: RequestTarget) -> tuple[Tool | HostedTool, ...]:
    """The tools to which a Gemini client restricts the model, which only Gemini can express."""
    if target.wire == GEMINI or request.parameters.wire != GEMINI:
        return request.tools
    names = value_at(request.parameters.extra.get(GEMINI, {}), _ALLOWED)
    if not isinstance(names, list) or not names:
        return request.tools
    return tuple(tool for tool in request.tools if not isinstance(tool, Tool) or tool.name in names)


def _check_named(choice: ToolChoice, tools: list[Tool | HostedTool]) -> None:
    known = {tool.name for tool in tools if isinstance(tool, Tool)}
    known |= {name for tool in tools for name in names_in(tool)}
    known |= {custom.name for tool in tools if (custom := read_tool(tool)) is not None}
    if choice.name not in known:
        raise bad_request("tool_choice", f"tool_choice names {choice.name!r}, which is not among the tools")


def _names(tools: list[Tool | HostedTool], messages: tuple[Message, ...], target: RequestTarget) -> dict[str, str]:
    """The names to rewrite: those of the tools, and of calls in the conversation, whose tools may no longer exist."""
    limit = target.limits.tool_name
    if limit is None:
        return {}
    names = [tool.name for tool in tools if isinstance(tool, Tool)]
    names += [part.name for message in messages for part in message.content if isinstance(part, ToolCall)]
    return {} if all(is_accepted(name, limit) for name in names) else accepted(names, limit)


def _renamed(tool: Tool | HostedTool, names: Mapping[str, str]) -> Tool | HostedTool:
    if isinstance(tool, Tool) and tool.name in names:
        return msgspec.structs.replace(tool, name=names[tool.name])
    return tool


# ---------------------------------------------------------------- the response's format


class Format(NamedTuple):
    """The adapted format. ``is_emulated``: the model is only instructed to write JSON, and the response has to be
    checked.
    """

    form: ResponseFormat | None
    is_emulated: bool = False
    adjusted: tuple[Adjustment, ...] = ()


def fit_format(request: ChatRequest, target: RequestTarget) -> Format:
    """The response format. Raises `UnsupportedError` if the target cannot combine it with the other parameters."""
    form = request.response_format
    if form is None or form.type == "text":
        return Format(form)
    if request.tools and not target.limits.json_beside_tools:
        raise unsupported("response_format", f"{target.who} does not accept a response format together with tools")
    if form.type == "json_schema" and not target.limits.json_schemas:
        raise unsupported("response_format", f"{target.who} does not accept a JSON schema for its response")
    if form.type == "json" and not target.limits.json_without_schema:
        return Format(
            None, True, (Adjustment("response_format", "emulated", "an instruction to respond with JSON, checked"),)
        )
    if (limit := target.limits.schema_name) is not None and not is_accepted(form.name, limit):
        form = msgspec.structs.replace(form, name=accepted((form.name,), limit)[form.name])
    return Format(form)


def with_json_order(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation with the instruction to write JSON after its system messages."""
    at = next((at for at, message in enumerate(messages) if message.role not in ("system", "developer")), len(messages))
    return (*messages[:at], Message("system", (Text(JSON_ORDER),)), *messages[at:])


def without_fitted(extra: JsonObject, wire: str, target: RequestTarget) -> JsonObject:
    """The fields of a client's ``wire`` without those that `fit_tools` has handled."""
    choice: Any = extra.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "custom":
        extra = without_value(extra, "tool_choice")
    return without_value(extra, _ALLOWED) if wire == GEMINI and target.wire != GEMINI else extra
