"""Namespaces: functions and custom tools in named groups, and tools in the conversation, as OpenAI's Responses API has
them.

For every other target, all tools are moved into the list of tools, and a tool of a namespace gets a name made of the
namespace's name and the tool's own name. Calls in the conversation are renamed, and the model's calls get the two names
back: see `NamespaceRestorer`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeGuard, final

import msgspec

from llm_protocol.content import HostedTool, JsonObject, Message, Opaque, Part, Tool, ToolCall
from llm_protocol.events import Event, ItemDone, ItemStarted
from llm_protocol.requests import ChatRequest

RESPONSES: Final = "openai_responses"
_NAMESPACE: Final = "namespace"


class NamespacedTool(NamedTuple):
    """The two names by which clients know a tool of a namespace."""

    namespace: str
    name: str


class Flattened(NamedTuple):
    """``members``: the joined name of each tool of a namespace, and its two names. ``places``: for each tool of
    ``request``, the position that the tool or its namespace had before. ``groups``: the former positions of the
    namespaces.
    """

    request: ChatRequest
    members: Mapping[str, NamespacedTool] = {}
    places: tuple[int, ...] | None = None
    groups: tuple[int, ...] = ()


def flatten(request: ChatRequest) -> Flattened:
    """The request without namespaces, and without tools in its conversation. A request that has none is returned
    unchanged.
    """
    request = _with_tools_in_place(request)
    groups = tuple(at for at, tool in enumerate(request.tools) if _is_group(tool))
    if not groups and not any(_member_called(part) for message in request.messages for part in message.content):
        return Flattened(request)
    taken = {name for tool in request.tools if (name := _name_of(tool)) is not None}
    names: dict[NamespacedTool, str] = {}
    tools: list[Tool | HostedTool] = []
    places: list[int] = []
    for at, tool in enumerate(request.tools):
        if not isinstance(tool, HostedTool) or not _is_group(tool):
            tools.append(tool)
            places.append(at)
            continue
        for inner in _members(tool.value):
            member = NamespacedTool(str(tool.value["name"]), str(inner["name"]))
            if member in names:
                continue
            names[member] = _free(member, taken)
            taken.add(names[member])
            tools.append(_alone(inner, names[member], tool.value))
            places.append(at)
    messages = tuple(_with_one_name(message, names) for message in request.messages)
    choice = request.tool_choice
    if choice is not None and choice.mode == "named" and choice.name not in taken:
        found = next((flat for member, flat in names.items() if member.name == choice.name), choice.name)
        choice = msgspec.structs.replace(choice, name=found)
    flat = msgspec.structs.replace(request, tools=tuple(tools), messages=messages, tool_choice=choice)
    return Flattened(flat, {name: member for member, name in names.items()}, tuple(places), groups)


def _with_tools_in_place(request: ChatRequest) -> ChatRequest:
    """The request with the tools of its conversation added to its tools."""
    added = [part for message in request.messages for part in message.content if _adds_tools(part)]
    if not added:
        return request
    tools = [_read_tool(tool) for part in added for tool in part.value["tools"] if isinstance(tool, dict)]
    rest = ((message, [part for part in message.content if part not in added]) for message in request.messages)
    messages = tuple(msgspec.structs.replace(message, content=tuple(left)) for message, left in rest if left)
    return msgspec.structs.replace(request, tools=(*request.tools, *tools), messages=messages)


def _adds_tools(part: Part) -> TypeGuard[Opaque]:
    if not isinstance(part, Opaque) or part.dialect != RESPONSES:
        return False
    return part.value.get("type") == "additional_tools" and isinstance(part.value.get("tools"), list)


def _read_tool(tool: JsonObject) -> Tool | HostedTool:
    if tool.get("type") == "function" and isinstance(tool.get("name"), str):
        return _function(tool, tool["name"], tool.get("description"))
    return HostedTool(dialect=RESPONSES, value=tool)


def _function(tool: JsonObject, name: str, description: Any) -> Tool:
    parameters, strict = tool.get("parameters"), tool.get("strict")
    return Tool(
        name=name,
        description=description if isinstance(description, str) else None,
        parameters=parameters if isinstance(parameters, dict) else {},
        strict=strict if isinstance(strict, bool) else None,
    )


def names_in(tool: Tool | HostedTool) -> Iterator[str]:
    """The names of the tools in a namespace; empty if ``tool`` is not a namespace."""
    if isinstance(tool, HostedTool) and _is_group(tool):
        yield from (str(inner["name"]) for inner in _members(tool.value))


def _is_group(tool: Tool | HostedTool) -> bool:
    if not isinstance(tool, HostedTool) or tool.dialect != RESPONSES or tool.value.get("type") != _NAMESPACE:
        return False
    return isinstance(tool.value.get("name"), str) and isinstance(tool.value.get("tools"), list)


def _members(group: JsonObject) -> Iterator[JsonObject]:
    for inner in group["tools"]:
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            yield inner


def _name_of(tool: Tool | HostedTool) -> str | None:
    name = tool.name if isinstance(tool, Tool) else tool.value.get("name")
    return name if isinstance(name, str) and not _is_group(tool) else None


def _joined(member: NamespacedTool) -> str:
    return f"{member.namespace}{'' if member.namespace.endswith('_') else '__'}{member.name}"


def _free(member: NamespacedTool, taken: Collection[str]) -> str:
    name = _joined(member)
    while name in taken:
        name += "_"
    return name


def _alone(inner: JsonObject, name: str, group: JsonObject) -> Tool | HostedTool:
    """Return a tool of ``group`` as a separate tool, with the description of the group added."""
    words = [text for text in (group.get("description"), inner.get("description")) if isinstance(text, str) and text]
    description = "\n\n".join(words) or None
    if inner.get("type") == "custom":
        return HostedTool(dialect=RESPONSES, value={**inner, "name": name, "description": description})
    return _function(inner, name, description)


# ---------------------------------------------------------------- the conversation


def _member_called(part: Part) -> NamespacedTool | None:
    """The tool of a namespace that ``part`` calls, if it does."""
    match part:
        case ToolCall(name=name, extra={"openai_responses": {"namespace": str(namespace)}}):
            return NamespacedTool(namespace, name)
        case Opaque(dialect="openai_responses", value={"type": "custom_tool_call", "name": str(name)} as value):
            group = value.get(_NAMESPACE)
            return NamespacedTool(group, name) if isinstance(group, str) else None
        case _:
            return None


def _with_one_name(message: Message, names: Mapping[NamespacedTool, str]) -> Message:
    if message.role != "assistant":
        return message
    content = tuple(_renamed(part, names) for part in message.content)
    return message if content == message.content else msgspec.structs.replace(message, content=content)


def _renamed(part: Part, names: Mapping[NamespacedTool, str]) -> Part:
    member = _member_called(part)
    if member is None:
        return part
    name = names.get(member) or _joined(member)  # the tool may no longer exist
    if isinstance(part, Opaque):
        value = {key: value for key, value in part.value.items() if key != _NAMESPACE}
        return msgspec.structs.replace(part, value={**value, "name": name})
    assert isinstance(part, ToolCall)
    extra = {wire: _without(fields) if wire == RESPONSES else fields for wire, fields in (part.extra or {}).items()}
    return msgspec.structs.replace(part, name=name, extra={wire: rest for wire, rest in extra.items() if rest} or None)


def _without(fields: JsonObject) -> JsonObject:
    return {key: value for key, value in fields.items() if key != _NAMESPACE}


# ---------------------------------------------------------------- responses


@final
class NamespaceRestorer:
    """Restores namespace and name in calls of ``members``; see `llm_protocol.parameters.restore.EventFilter`."""

    def __init__(self, members: Mapping[str, NamespacedTool]) -> None:
        self._members = members

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """The events to report."""
        return [self._one(event) for event in events]

    def _one(self, event: Event) -> Event:
        match event:
            case ItemStarted(name=str(name)) if name in self._members:
                return msgspec.structs.replace(event, name=self._members[name].name)
            case ItemDone(part=ToolCall(name=name) as call) if name in self._members:
                namespace, own = self._members[name]
                extra = dict(call.extra or {})
                extra[RESPONSES] = {**extra.get(RESPONSES, {}), _NAMESPACE: namespace}
                return msgspec.structs.replace(event, part=msgspec.structs.replace(call, name=own, extra=extra))
            case ItemDone(part=Opaque(dialect="openai_responses", value={"type": "custom_tool_call"} as value) as part):
                member = self._members.get(str(value.get("name")))
                if member is None:
                    return event
                value = {**value, "name": member.name, _NAMESPACE: member.namespace}
                return msgspec.structs.replace(event, part=msgspec.structs.replace(part, value=value))
            case _:
                return event
