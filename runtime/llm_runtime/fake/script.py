"""The script of the fake: rules for responses other than the default. The first rule that matches a request applies.

A rule says which requests it matches, how to respond, and what goes wrong. In a TOML file, each is a ``[[rule]]``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, final

import msgspec

from llm_protocol.codec.fields import bad_request
from llm_protocol.content import JsonObject, Part, Text, ToolResult
from llm_protocol.dialect import ClientRequest
from llm_protocol.errors import BadRequestError
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    CodeRequest,
    EmbeddingRequest,
    RequestType,
)
from llm_protocol.response import FinishReason, Usage
from llm_protocol.secret import Secret
from llm_protocol.vendor import UnknownVendorError, VendorTable
from llm_protocol.vendors import VENDORS
from llm_runtime.config.conversion import convert, refuse_unknown
from llm_runtime.config.errors import ConfigError, line_of, under
from llm_runtime.config.providers import TOKEN

MAX_SCRIPT_BYTES = 1024 * 1024
MAX_RULES = 1_000

FAULT_HEADER = "x-fake-fault"
"""The header of a request that names a fault for its response. It takes precedence over the rules."""

_FAULT_MODEL = re.compile(r"(?:.*/)?fault-(.+)")
_FAULT_WORD = re.compile(r"([a-z0-9_-]{1,40})(?:@(\d{1,6}))?")

Seconds = Annotated[float, msgspec.Meta(ge=0, le=3_600)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Fault(StrEnum):
    """What can go wrong in a response that has begun with a 200."""

    TRUNCATE = "truncate"
    """The response stops in the middle, but is complete for HTTP."""
    CLOSE = "close"
    """The connection is closed in the middle (FIN)."""
    RESET = "reset"
    """The connection is reset in the middle (RST)."""
    STALL = "stall"
    """Nothing more is sent, and the connection stays open."""
    ERROR = "error"
    """The vendor's own error, in the middle of the response."""
    GARBAGE = "garbage"
    """Bytes that are no valid part of a response."""
    NO_END = "no-end"
    """The whole response, but without the vendor's end marker."""
    BOMB_LINE = "bomb-line"
    """An endless line."""
    BOMB_GZIP = "bomb-gzip"
    """A small gzip body that unpacks to 300 MiB."""
    BOMB_KEYS = "bomb-keys"
    """A JSON object with a million keys."""
    BOMB_DEPTH = "bomb-depth"
    """JSON a hundred thousand levels deep."""


class FakeToolCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool call to respond with. Without ``arguments``, they are made from the tool's schema."""

    name: str
    arguments: JsonObject | None = None


class ScriptRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule. A condition that is not set matches every request; a change that is not set changes nothing."""

    kind: str | None = None
    """The kind of the vendor."""
    model: str | None = None
    """The name of the model, with ``*`` and ``?`` as in file names."""
    request_type: RequestType | None = None
    stream: bool | None = None
    contains: str | None = None
    """A part of the text of the last message, of the prompt or of an input."""
    after_tool: bool | None = None
    """Whether the last message is a tool's result. The default in a rule with ``tool_calls`` is false."""
    nth: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Match only the nth request, from 1, of those that match the fields above."""
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """The most requests that the rule matches."""

    text: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: tuple[FakeToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None

    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    message: str | None = None
    code: str | None = None
    retry_after: Seconds | None = None
    headers: dict[str, str] = {}
    """Headers to add to the response, such as rate-limit headers."""
    body: str | None = None
    """The body to send, in place of the generated body."""
    delay_head_s: Seconds = 0.0
    """Seconds to wait before anything is sent."""
    delay_first_s: Seconds = 0.0
    """Seconds to wait between the head and the first event."""
    delay_event_s: Seconds = 0.0
    """Seconds to wait before each later event."""
    split_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """The size of each sent piece of the body, in bytes."""
    fault: Fault | None = None
    after_events: Count | None = None
    """The number of events before the fault; 0: only the head. Default: 3, or fewer if the end marker comes earlier."""
    after_bytes: Count | None = None
    """The number of bytes, including the head, after which the connection is cut; 0: not even the head is sent.
    ``fault`` says how it is cut; default: ``close``."""

    def matches(self, kind: str, inbound: ClientRequest) -> bool:
        """Return whether the rule matches a request, without regard to its counts."""
        request = inbound.request
        after_tool = False if self.tool_calls and self.after_tool is None else self.after_tool
        return (
            self.kind in (None, kind)
            and (self.model is None or fnmatchcase(request.model, self.model))
            and self.request_type in (None, request.request_type)
            and self.stream in (None, inbound.stream)
            and (self.contains is None or self.contains in asked(request))
            and after_tool in (None, follows_tool(request))
        )


USUAL = ScriptRule()
"""The rule that applies if no other matches: it changes nothing."""


def asked(request: AnyRequest) -> str:
    """Return the text of a request: its last message, its prompt or its inputs."""
    match request:
        case ChatRequest():
            parts = last_said(request)
            return "".join(part.text for part in parts if isinstance(part, Text | ToolResult))
        case EmbeddingRequest(inputs=inputs):
            return "\n".join(map(str, inputs))
        case CodeRequest(instruction=instruction):
            return instruction
        case _:
            return request.prompt


def last_said(request: ChatRequest) -> tuple[Part, ...]:
    """Return the parts of the last message, if there is one."""
    return request.messages[-1].content if request.messages else ()


def follows_tool(request: AnyRequest) -> bool:
    """Return whether the last message is a tool's result."""
    return isinstance(request, ChatRequest) and any(isinstance(part, ToolResult) for part in last_said(request))


def fault_named(word: str) -> ScriptRule:
    """Return the rule for a word such as ``429``, ``reset`` or ``stall@0``. Raises `BadRequestError`."""
    found = _FAULT_WORD.fullmatch(word)
    name, after = found.groups() if found else ("", None)
    events = None if after is None else int(after)
    if name.isdecimal() and 400 <= int(name) <= 599:
        return ScriptRule(status=int(name))
    if name in list(Fault):
        return ScriptRule(fault=Fault(name), after_events=events)
    raise bad_request(None, f"there is no fault {word[:50]!r}: write 400 to 599, or one of {', '.join(Fault)}")


@final
class Script:
    """The rules in order, and how many requests each has matched."""

    def __init__(self, rules: Sequence[ScriptRule] = ()) -> None:
        self.rules = tuple(rules)
        self._met = [0] * len(self.rules)
        self._used = [0] * len(self.rules)

    def choose(self, kind: str, inbound: ClientRequest, header: str | None) -> ScriptRule:
        """Return the rule for the next request: that of its header, else that of its model's name, else the first rule
        that matches. Raises `BadRequestError` for an unknown fault.
        """
        if header is not None:
            return fault_named(header)
        if named := _FAULT_MODEL.fullmatch(inbound.request.model):
            return fault_named(named[1])
        chosen = USUAL
        for at, rule in enumerate(self.rules):
            if not rule.matches(kind, inbound):
                continue
            self._met[at] += 1  # later rules count too, so that ``nth`` counts all requests that match
            if (
                chosen is USUAL
                and rule.nth in (None, self._met[at])
                and self._used[at] < (rule.times or self._used[at] + 1)
            ):
                self._used[at] += 1
                chosen = rule
        return chosen


class _File(msgspec.Struct, frozen=True):
    rule: object = ()


def load_script(file: Path, vendors: VendorTable = VENDORS) -> tuple[ScriptRule, ...]:
    """Return the rules in a TOML file. ``vendors``: the kinds that they may name. Raises `BadRequestError` with a
    message of one line. Does blocking file I/O.
    """
    import tomllib

    source = ""
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_SCRIPT_BYTES + 1)
        if len(content) > MAX_SCRIPT_BYTES:
            raise _wrong(file, f"larger than {MAX_SCRIPT_BYTES} bytes")
        source = content.decode()
        return _rules(tomllib.loads(source), vendors)
    except OSError as exc:
        raise _wrong(file, f"cannot be read: {exc.strerror}") from None
    except ConfigError as exc:
        line = line_of(source, exc.path) or line_of(source, exc.path[:2])
        raise _wrong(file, str(ConfigError(exc.message, *exc.path)), line) from None
    except ValueError as exc:
        raise _wrong(file, f"not TOML: {exc}") from None


def _rules(table: JsonObject, vendors: VendorTable) -> tuple[ScriptRule, ...]:
    refuse_unknown(table, _File)
    given = table.get("rule", [])
    if not isinstance(given, list) or len(given) > MAX_RULES:
        raise ConfigError(f"expected at most {MAX_RULES} tables [[rule]]", "rule")
    rules: list[ScriptRule] = []
    for at, rule in enumerate(given):
        with under("rule", f"[{at}]"):
            found = convert(rule, ScriptRule, lambda _: Secret(""))  # a rule has no key
            _check_headers(found.headers)
            if found.kind is not None and found.kind not in vendors:
                raise ConfigError(str(UnknownVendorError(found.kind, vendors)), "kind")
            rules.append(found)
    return tuple(rules)


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not TOKEN.fullmatch(name):
            raise ConfigError("not a valid header name", "headers", name)
        if max(value, default="") > "\xff" or not value.isprintable():
            raise ConfigError("a header's value must be printable Latin-1", "headers", name)


def _wrong(file: Path, what: str, line: int | None = None) -> BadRequestError:
    return bad_request(None, f"{file}:{line}: {what}" if line else f"{file}: {what}")
