"""Turn the keyword arguments of a program into canonical requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypedDict, cast, get_args

from llm_protocol.codec.fields import bad_request, typed
from llm_protocol.content import HostedTool, JsonObject, Message, Part, ResponseFormat, Role, Tool, ToolChoice
from llm_protocol.policy import Policy
from llm_protocol.requests import ChatRequest, Parameters

Messages: TypeAlias = str | Sequence[Message | Mapping[str, str]]
"""A user's text; or messages, each a `Message` or a mapping with ``role`` and ``content``, both strings."""

_ROLES = frozenset(("system", "developer", "user", "assistant", "tool"))


class Options(TypedDict, total=False):
    """The options of every request: the fields of `LLMRequest` and of `Parameters`, by name."""

    model: str
    provider: str
    context: JsonObject
    metadata: JsonObject
    deadline_s: float
    policy: Policy
    temperature: float
    top_p: float
    top_k: int
    max_output_tokens: int
    stop: Sequence[str]
    frequency_penalty: float
    presence_penalty: float
    seed: int
    reasoning_effort: str
    reasoning_budget: int
    reasoning_summary: str
    parallel_tool_calls: bool
    user: str
    lenient: bool
    extra: dict[str, JsonObject]


class ToolOptions(Options, total=False):
    """The options of a chat whose tools are passed separately."""

    tool_choice: ToolChoice
    response_format: ResponseFormat


class ChatOptions(ToolOptions, total=False):
    """The options of a chat: those of `ToolOptions`, and the tools."""

    tools: Sequence[Tool | HostedTool]


_PARAMETERS = frozenset(Parameters.__struct_fields__)
_OPTIONS = ChatOptions.__optional_keys__
_PARTS = get_args(Part)


def split(options: Options) -> JsonObject:
    """Return keyword arguments for a request: the parameters combined into one `Parameters`, and all types checked.

    Raises `BadRequestError` for a value of the wrong type, and `TypeError` for an unknown option.
    """
    given = cast("dict[str, object]", dict(options))
    if unknown := given.keys() - _OPTIONS:
        from llm_protocol.codec.wording import suggestion  # imported only to explain an error

        name = min(unknown)
        raise TypeError(f"there is no option {name!r}{suggestion(name, _OPTIONS)}")
    parameters = typed({name: given.pop(name) for name in _PARAMETERS & given.keys()}, Parameters)
    # A chat accepts every option, but its parts are not checked there: a wrong type would surface in a provider's
    # encoder.
    request = typed({**given, "parameters": parameters, "messages": ()}, ChatRequest)
    return {name: getattr(request, name) for name in (*given, "parameters")}


def as_messages(messages: Messages) -> tuple[Message, ...]:
    """Return the canonical messages. Raises `BadRequestError` for a value that is not `Messages`."""
    if isinstance(messages, str):
        return (Message.of("user", messages),)
    given = cast("object", messages)
    if not isinstance(given, Sequence) or not given:
        found = "empty" if isinstance(given, Sequence) else f"of type {type(given).__name__}"
        raise bad_request("messages", f"messages is {found}: it must be a string, or a list of at least one message")
    return tuple(_message(each, index) for index, each in enumerate(given))


def _message(message: object, index: int) -> Message:
    if isinstance(message, Message):
        content: object = message.content
        if not isinstance(content, tuple | list) or not all(isinstance(part, _PARTS) for part in content):
            where = f"messages[{index}].content"
            raise bad_request(where, f"{where} is not a tuple of parts; for text alone, use Message.of(role, text)")
        return message
    fields = message if isinstance(message, Mapping) else {}
    role, content = fields.get("role"), fields.get("content")
    if role not in _ROLES or not isinstance(content, str):
        raise bad_request(
            f"messages[{index}]",
            f"messages[{index}] is neither a Message nor a mapping with a role ({', '.join(sorted(_ROLES))}) "
            "and a content string",
        )
    return Message.of(cast("Role", role), content)
