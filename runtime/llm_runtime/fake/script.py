"""What the fake does otherwise than usual: rules, the first of which that fits a request decides.

A rule says which requests it is for, what to answer, and what goes wrong. In a TOML file each is a ``[[rule]]``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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
from llm_runtime.config.errors import ConfigError, under
from llm_runtime.config.lines import line_of

MAX_SCRIPT_BYTES = 1024 * 1024
MAX_RULES = 1_000

FAULT_HEADER = "x-fake-fault"
"""A request's header with this name gets the fault that it names, whatever the rules say."""

_FAULT_MODEL = re.compile(r"(?:.*/)?fault-(.+)")
_FAULT_WORD = re.compile(r"([a-z0-9_-]+)(?:@(\d{1,6}))?")

Seconds = Annotated[float, msgspec.Meta(ge=0, le=3_600)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Fault(StrEnum):
    """What can go wrong in an answer that has begun with a 200."""

    TRUNCATE = "truncate"
    """The answer stops in the middle, and HTTP says that it is whole."""
    CLOSE = "close"
    """The connection is closed in the middle (FIN)."""
    RESET = "reset"
    """The connection is reset in the middle (RST)."""
    STALL = "stall"
    """Nothing more is said, and the connection stays open."""
    ERROR = "error"
    """The vendor's own error, inside the answer that had begun."""
    GARBAGE = "garbage"
    """Something that is none of the vendor's words."""
    NO_END = "no-end"
    """Everything but the vendor's end marker."""
    BOMB_LINE = "bomb-line"
    """A line that does not end."""
    BOMB_GZIP = "bomb-gzip"
    """A little compressed data that becomes very much."""
    BOMB_KEYS = "bomb-keys"
    """A JSON object with a million keys."""
    BOMB_DEPTH = "bomb-depth"
    """JSON a hundred thousand levels deep."""


class FakeToolCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool call to answer with. Without ``arguments`` they are made from the tool's schema."""

    name: str
    arguments: JsonObject | None = None


class ScriptRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule; see the module. What is not set fits every request, and changes nothing."""

    kind: str | None = None
    """The vendor's."""
    model: str | None = None
    """The model's name; ``*`` and ``?`` as in file names."""
    request_type: RequestType | None = None
    stream: bool | None = None
    contains: str | None = None
    """A part of the last message's text (or of the prompt, or of an input)."""
    after_tool: bool | None = None
    """Whether the last message is a tool's result. A rule with ``tool_calls`` wants false unless this is set."""
    nth: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Only the nth request, from 1, of those that the fields above fit."""
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """At most so many requests."""

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
    """Added to the head of the answer, such as rate-limit headers."""
    body: str | None = None
    """Instead of the whole body."""
    delay_head_s: Seconds = 0.0
    """Before anything is said."""
    delay_first_s: Seconds = 0.0
    """Between the head and the first event."""
    delay_event_s: Seconds = 0.0
    """Before each later event."""
    split_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Send the body in pieces of so many bytes."""
    fault: Fault | None = None
    after_events: Count | None = None
    """Events before the fault; 0: the head alone. By default 3, but never the end marker."""
    after_bytes: Count | None = None
    """Bytes on the wire, the head included, before the connection is cut; 0: not even the head. ``fault`` says how
    it is cut (``close`` if not set)."""

    def fits(self, kind: str, inbound: ClientRequest) -> bool:
        """Whether the rule is for such a request, its counts left aside."""
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
"""What is done when no rule fits."""


def asked(request: AnyRequest) -> str:
    """What a request asks, in one text: the last message, the prompt, the inputs."""
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
    """What the last message holds, if there is any."""
    return request.messages[-1].content if request.messages else ()


def follows_tool(request: AnyRequest) -> bool:
    """Whether the last thing said is a tool's result."""
    return isinstance(request, ChatRequest) and any(isinstance(part, ToolResult) for part in last_said(request))


def fault_named(word: str) -> ScriptRule:
    """The rule that a word such as ``429``, ``reset`` or ``stall@0`` stands for. Raises `BadRequestError`."""
    found = _FAULT_WORD.fullmatch(word)
    name, after = found.groups() if found else ("", None)
    events = None if after is None else int(after)
    if name.isdecimal() and 400 <= int(name) <= 599:
        return ScriptRule(status=int(name))
    if name in list(Fault):
        return ScriptRule(fault=Fault(name), after_events=events)
    raise bad_request(None, f"there is no fault {word[:50]!r}: it is a status (400 to 599) or {', '.join(Fault)}")


@final
class Script:
    """Rules in order, and how often each was met."""

    def __init__(self, rules: Sequence[ScriptRule] = ()) -> None:
        self.rules = tuple(rules)
        self._met = [0] * len(self.rules)
        self._used = [0] * len(self.rules)

    def choose(self, kind: str, inbound: ClientRequest, header: str | None) -> ScriptRule:
        """What to do with the next request: what its header says, else its model's name, else the first rule that
        fits. Raises `BadRequestError` for a fault that there is not.
        """
        if header is not None:
            return fault_named(header)
        if named := _FAULT_MODEL.fullmatch(inbound.request.model):
            return fault_named(named[1])
        chosen = USUAL
        for at, rule in enumerate(self.rules):
            if not rule.fits(kind, inbound):
                continue
            self._met[at] += 1  # also behind the rule that decides: the nth is the nth that came
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
    """The rules in a TOML file, whose kinds are those of ``vendors``. Raises `BadRequestError` with one line for a
    person; does blocking file I/O.
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
            if found.kind is not None and found.kind not in vendors:
                raise ConfigError(str(UnknownVendorError(found.kind, vendors)), "kind")
            rules.append(found)
    return tuple(rules)


def _wrong(file: Path, what: str, line: int | None = None) -> BadRequestError:
    return bad_request(None, f"{file}:{line}: {what}" if line else f"{file}: {what}")
