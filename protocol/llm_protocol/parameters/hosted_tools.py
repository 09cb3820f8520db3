"""Hosted tools: tools that run at the vendor. A tool that several vendors have is sent to each in its own form. A tool
that the target lacks, or that it could only run without a restriction that the client has set, is left out. File search
is not mapped, because its files are stored at one vendor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from llm_protocol.content import HostedTool, JsonObject
from llm_protocol.parameters.targets import RequestTarget

RESPONSES: Final = "openai_responses"
ANTHROPIC: Final = "anthropic"
GEMINI: Final = "gemini"


class WebSearch(msgspec.Struct, frozen=True, kw_only=True):
    """A web search. ``location`` is in the form that OpenAI and Anthropic share. ``is_live``: the search may fetch
    pages; otherwise it reads the vendor's own copies.
    """

    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    location: JsonObject | None = None
    is_live: bool = True


class CodeExecution(msgspec.Struct, frozen=True):
    """A sandbox of the vendor, without files."""


def fit_hosted(tool: HostedTool, target: RequestTarget) -> HostedTool | None:
    """The tool in the target's form; ``None`` if it has no equivalent."""
    if tool.dialect == target.wire:
        return tool if target.has_hosted_tools else None
    write = _WRITERS.get(target.wire) if target.has_hosted_tools else None
    found = _read(tool)
    value = None if write is None or found is None else write(found)
    return None if value is None else HostedTool(dialect=target.wire, value=value)


def name_of(tool: HostedTool) -> str | None:
    """Return the tool's name on Anthropic's wire, the only one that requires a name. No other tool of the request may
    have the same name. ``None`` on other wires, or if the name is missing.
    """
    name = tool.value.get("name")
    return name if isinstance(name, str) and tool.dialect == ANTHROPIC else None


# ---------------------------------------------------------------- reading


def _read(tool: HostedTool) -> WebSearch | CodeExecution | None:
    value, kind = tool.value, str(tool.value.get("type", ""))
    match tool.dialect:
        case "openai_responses" if kind.startswith("web_search"):
            filters = value.get("filters")
            return WebSearch(
                allowed=_domains(filters, "allowed_domains"),
                blocked=_domains(filters, "blocked_domains"),
                location=_object(value.get("user_location")),
                is_live=value.get("external_web_access") is not False,
            )
        case "anthropic" if kind.startswith("web_search"):
            return WebSearch(
                allowed=_domains(value, "allowed_domains"),
                blocked=_domains(value, "blocked_domains"),
                location=_object(value.get("user_location")),
            )
        case "gemini" if "googleSearch" in value:
            return WebSearch(blocked=_domains(value["googleSearch"], "excludeDomains"))
        case "openai_responses" if kind == "code_interpreter" and _is_empty(value.get("container")):
            return CodeExecution()
        case "anthropic" if kind.startswith("code_execution"):
            return CodeExecution()
        case "gemini" if "codeExecution" in value:
            return CodeExecution()
        case _:
            return None


def _is_empty(container: Any) -> bool:
    """Whether the sandbox is new and without files, which only its vendor has."""
    return isinstance(container, dict) and container.get("type") == "auto" and not container.get("file_ids")


def _domains(value: Any, name: str) -> tuple[str, ...]:
    found = value.get(name) if isinstance(value, dict) else None
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()


def _object(value: Any) -> JsonObject | None:
    return value if isinstance(value, dict) else None


# ---------------------------------------------------------------- writing


def _to_responses(tool: WebSearch | CodeExecution) -> JsonObject | None:
    if isinstance(tool, CodeExecution):
        return {"type": "code_interpreter", "container": {"type": "auto"}}
    if tool.blocked:
        return None
    body: JsonObject = {"type": "web_search"}
    if tool.allowed:
        body["filters"] = {"allowed_domains": list(tool.allowed)}
    return body if tool.location is None else body | {"user_location": tool.location}


def _to_anthropic(tool: WebSearch | CodeExecution) -> JsonObject | None:
    if isinstance(tool, CodeExecution):
        return {"type": "code_execution_20250825", "name": "code_execution"}
    if not tool.is_live or (tool.allowed and tool.blocked):
        return None
    body: JsonObject = {"type": "web_search_20250305", "name": "web_search"}
    domains = {"allowed_domains": list(tool.allowed), "blocked_domains": list(tool.blocked)}
    body |= {name: found for name, found in domains.items() if found}
    return body if tool.location is None else body | {"user_location": tool.location}


def _to_gemini(tool: WebSearch | CodeExecution) -> JsonObject | None:
    if isinstance(tool, CodeExecution):
        return {"codeExecution": {}}
    return None if tool.allowed or tool.blocked or not tool.is_live else {"googleSearch": {}}


_WRITERS: Final[Mapping[str, Callable[[WebSearch | CodeExecution], JsonObject | None]]] = {
    RESPONSES: _to_responses,
    ANTHROPIC: _to_anthropic,
    GEMINI: _to_gemini,
}
