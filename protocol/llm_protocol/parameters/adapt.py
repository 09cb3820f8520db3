"""Adapt a request to a target: the adjusted request, the list of changes, and the filters that undo them in the
response. Pure.

`llm_protocol.parameters.table` says what is done with each parameter. A parameter that cannot be kept raises
`UnsupportedError` with its name, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, NamedTuple

import msgspec

from llm_protocol.adjustments import LOSSY, Adjustment
from llm_protocol.client_headers import TOLD
from llm_protocol.codec.fields import unsupported
from llm_protocol.content import JsonObject, Text, Tool
from llm_protocol.errors import UnsupportedError
from llm_protocol.model_facts import ModelRule
from llm_protocol.parameters.conversation import fit_messages, without_hosted
from llm_protocol.parameters.custom_tools import WIRES, fit_custom_calls
from llm_protocol.parameters.forms import fit_format, fit_tools, with_json_order, without_fitted
from llm_protocol.parameters.models import REASONING, ModelTakes, fit_reasoning, taken_by_type, takes_of
from llm_protocol.parameters.names import shortened
from llm_protocol.parameters.namespaces import Flattened, NamespaceRestorer, flatten
from llm_protocol.parameters.requested import CANONICAL, Used, own_fields, with_value, without_value
from llm_protocol.parameters.restore import EventFilter, JsonKeeper, StopCutter, ToolRestorer
from llm_protocol.parameters.rows import LEAVE_OUT, CannotKeep, Parameter
from llm_protocol.parameters.table import BY_TYPE, TOKEN_IDS
from llm_protocol.parameters.targets import RequestTarget
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    EmbeddingRequest,
    LLMRequest,
    Parameters,
    says_nothing,
)

_SAMPLING: Final = frozenset(("temperature", "top_p", "top_k"))


class Adapted(NamedTuple):
    """``request`` is sent to the target. ``filters`` are functions that create the filters for the events of its
    response; a filter serves one response only.
    """

    request: AnyRequest
    adjusted: tuple[Adjustment, ...] = ()
    filters: tuple[Callable[[], EventFilter], ...] = ()


def adapt(request: AnyRequest, target: RequestTarget, rule: ModelRule) -> Adapted:
    """Adapt ``request`` to ``target``, whose model has ``rule``. Raises `UnsupportedError` or `BadRequestError`."""
    work = _Work(request, target, rule)
    parameters = work.canonical()
    if isinstance(request, ChatRequest):
        return work.chat(request, parameters)
    extra = work.own_extra(request.parameters.extra.get(request.parameters.wire or "", {}))
    if isinstance(request, EmbeddingRequest):
        _check_inputs(request, target)
    changed = work.own_parameters(BY_TYPE.get(request.request_type, ()))
    return work.adapted(msgspec.structs.replace(request, parameters=work.with_extra(parameters, extra), **changed))


def refuse_lossy(adapted: Adapted) -> None:
    """Raise `UnsupportedError` for the first change that does not keep the meaning, as ``strict`` requires."""
    lossy = [each for each in adapted.adjusted if each.action in LOSSY]
    if lossy:
        changes = ", ".join(each.in_words for each in lossy)
        words = f"strict: the request cannot be sent unchanged: {changes}; omit these parameters, or turn strict off"
        raise unsupported(lossy[0].parameter, words)


class _Work:
    """Adapts one request to one target, and collects the changes."""

    def __init__(self, request: LLMRequest, target: RequestTarget, rule: ModelRule) -> None:
        self._request = request
        self._given = request.parameters
        self._target = target
        self._rule = rule
        self._wire = request.parameters.wire
        self._adjusted: list[Adjustment] = []
        self._filters: list[Callable[[], EventFilter]] = []

    @cached_property
    def _takes(self) -> ModelTakes:
        """What the model accepts. It is computed on demand: many requests have nothing that depends on it."""
        return takes_of(self._rule, self._target, self._request)

    def adapted(self, request: AnyRequest) -> Adapted:
        """Return ``request`` with its adjustments and the filters for its response."""
        if request.forwarded and self._wire != self._target.wire:
            request = msgspec.structs.replace(request, forwarded={})
        return Adapted(request, tuple(self._adjusted), tuple(self._filters))

    def _note(self, row: Parameter, adjustment: Adjustment) -> None:
        """Record a change under the client's own name of the parameter."""
        name = row.wires.get(self._wire or "", row.name)
        self._adjusted.append(msgspec.structs.replace(adjustment, parameter=name))

    # -- the canonical parameters ------------------------------------------------------------------------------------

    def canonical(self) -> Parameters:
        """The parameters that the target and the model accept."""
        if says_nothing(self._given):
            return self._given
        changed: JsonObject = {}
        rows = [row for row in CANONICAL if getattr(self._given, row.name) not in (None, ())]
        takes = taken_by_type(self._request, self._target)
        for row in rows:
            value = getattr(self._given, row.name)
            if takes is not None and row.name not in takes:
                self._leave_out(row, value, changed)
            elif row.name in REASONING:
                continue
            elif row.cell(self._target).action == "leave out":
                self._leave_out(row, value, changed)
            else:
                self._limit(row, value, changed)
        if takes is None:
            self._reason(rows, changed)
        self._sample(rows, changed)
        self._betas(changed)
        return msgspec.structs.replace(self._given, **changed) if changed else self._given

    def _betas(self, changed: JsonObject) -> None:
        """Remove the header fields of another wire, and the body fields that they enable."""
        headers = self._given.headers
        if headers and self._wire != self._target.wire:
            changed["headers"] = {}
            self._adjusted += [Adjustment(name, "left_out") for name in headers if name in TOLD]

    def _leave_out(self, row: Parameter, value: Any, changed: JsonObject) -> None:
        changed[row.name] = None
        if value not in row.neutral:
            self._note(row, Adjustment(row.name, "left_out"))

    def _limit(self, row: Parameter, value: Any, changed: JsonObject) -> None:
        """Adjust the value of a parameter to the target's limits."""
        limits = self._target.limits
        match row.name:
            case "stop":
                self._stop(row, value, changed)
            case "user":
                self._shorten(row, value, limits.user, changed)
            case "temperature" | "top_p" | "top_k":
                self._clamp(row, value, getattr(limits, row.name), changed)
            case "frequency_penalty" | "presence_penalty":
                self._clamp(row, value, limits.penalty, changed)
            case "parallel_tool_calls" if isinstance(self._request, ChatRequest) and not self._request.tools:
                changed[row.name] = None  # refused without tools, and has no meaning there
            case "parallel_tool_calls" if not self._takes.parallel_calls:
                changed[row.name] = None  # such models refuse the parameter, and never call two tools together
                if value:
                    self._note(row, Adjustment(row.name, "left_out"))

    def _clamp(self, row: Parameter, value: float, span: tuple[float, float] | None, changed: JsonObject) -> None:
        if span is None or span[0] <= value <= span[1]:
            return
        changed[row.name] = fitting = type(value)(min(max(value, span[0]), span[1]))
        self._note(row, Adjustment(row.name, "translated", fitting))

    def _shorten(self, row: Parameter, value: str, length: int | None, changed: JsonObject) -> None:
        if (short := shortened(value, length)) != value:
            changed[row.name] = short
            self._note(row, Adjustment(row.name, "rewritten", "its SHA-256"))

    def _stop(self, row: Parameter, stops: tuple[str, ...], changed: JsonObject) -> None:
        """Send as many stop sequences as the target accepts. If there are more, the runtime itself ends the response
        at any of them.
        """
        limits = self._target.limits
        if row.cell(self._target).action != "send" or not self._takes.stops:
            told: tuple[str, ...] = ()
        else:
            told = tuple(stop for stop in stops if limits.blank_stops or stop.strip())[: limits.stops]
        cut = tuple(stop for stop in stops if stop)
        if len(told) < len(cut):
            self._filters.append(lambda: StopCutter(cut))
            self._note(row, Adjustment(row.name, "emulated", "the runtime cuts off the response"))
        changed[row.name] = told

    def _reason(self, rows: list[Parameter], changed: JsonObject) -> None:
        if not any(row.name in REASONING for row in rows):
            return
        found = fit_reasoning(self._given, self._takes, own=self._wire == self._target.wire)
        changed |= {"reasoning_effort": found.effort, "reasoning_budget": found.budget}
        by_name = {row.name: row for row in rows}
        for each in found.adjusted:
            self._note(by_name[each.parameter], each)

    def _sample(self, rows: list[Parameter], changed: JsonObject) -> None:
        """Remove the sampling parameters if the model refuses them."""
        takes = self._takes
        effort = changed.get("reasoning_effort", self._given.reasoning_effort) or takes.default_effort
        thinks = effort not in (None, "none")
        if takes.samples and not (takes.only_samples_unthinking and thinks):
            return
        for row in rows:
            if row.name in _SAMPLING and changed.get(row.name, self) is not None:
                self._leave_out(row, getattr(self._given, row.name), changed)

    # -- the fields of the client's own wire -------------------------------------------------------------------------

    def own_extra(self, own: JsonObject) -> JsonObject:
        """Adapt the fields that a client of the request's wire sent."""
        if self._wire is None or not own:
            return {}
        found: JsonObject = own if self._target.wire == self._wire else {}
        for used in own_fields(own, self._wire):
            found = self._own_field(used, found)
        return found

    def _own_field(self, used: Used, found: JsonObject) -> JsonObject:
        row, target = used.row, self._target
        is_own = target.wire == self._wire
        if row is None:
            if is_own and target.is_open:
                return found
            raise self._cannot(used, f"{target.who} has no parameter like {used.path}")
        cell = row.cell(target)
        value, path = used.value, _path(row, target)
        if cell.how is not None:
            value = cell.how(value)
        if isinstance(value, CannotKeep):
            raise self._cannot(used, f"{target.who}: {value.why}")
        if cell.action in ("send", "translate") and value is not LEAVE_OUT and path is not None:
            if row.name == "prompt_cache_key" and isinstance(value, str):
                value = shortened(value, target.limits.cache_key)
            if value != used.value:
                self._adjusted.append(Adjustment(used.path, "translated", str(value)[:64]))
            return found if is_own and value == used.value else with_value(found, path, value)
        if cell.action == "refuse" and used.value not in row.neutral:
            raise self._cannot(
                used, f"{target.who} has no parameter like {used.path}, and without it the request means something else"
            )
        if used.value not in row.neutral:
            self._adjusted.append(Adjustment(used.path, "left_out"))
        return without_value(found, used.path) if is_own else found

    def _cannot(self, used: Used, message: str) -> UnsupportedError:
        return unsupported(used.path, message)

    def with_extra(self, parameters: Parameters, found: JsonObject) -> Parameters:
        """``parameters``, with ``found`` added to the fields that were addressed to the target's dialect by name."""
        wire, given = self._wire, self._given.extra
        if wire is None or wire not in given:
            return parameters
        rest = {name: fields for name, fields in given.items() if name != wire}
        if found:
            rest[self._target.wire] = {**found, **rest.get(self._target.wire, {})}
        return msgspec.structs.replace(parameters, extra=rest)

    # -- embeddings and images ---------------------------------------------------------------------------------------

    def own_parameters(self, rows: tuple[Parameter, ...]) -> JsonObject:
        """The changed fields of a request that is not a chat. Raises `UnsupportedError`."""
        changed: JsonObject = {}
        for row in rows:
            value = getattr(self._request, row.name)
            if value is None:
                continue
            action = row.cell(self._target).action
            known = self._target.limits.input_types if row.name == "input_type" else None
            if action == "send" and (known is None or value in known):
                continue
            if value in row.neutral:
                changed[row.name] = 1 if row.name == "n" else None
            elif row.kind == "meaning":
                raise unsupported(row.name, f"{self._target.who} has no parameter like {row.name}")
            else:
                self._leave_out(row, value, changed)
        return changed

    # -- chats -------------------------------------------------------------------------------------------------------

    def chat(self, request: ChatRequest, parameters: Parameters) -> Adapted:
        """Adapt a chat, with its tools, format and conversation."""
        target = self._target
        is_plain = _is_plain(request)
        if is_plain and self._has_only_messages(request):
            messages, limits = request.messages, target.limits
            if limits.speaker is not None or not (limits.empty_texts and limits.user_after_results):
                messages = fit_messages(messages, target, {}, is_text=True).messages  # nothing else limits texts
            self._note_marks(request)
            return self.adapted(msgspec.structs.replace(request, messages=messages, parameters=parameters))
        flat = Flattened(request) if is_plain or target.has_namespaces else flatten(request)
        self._adjusted += [Adjustment(f"tools[{at}]", "rewritten", "functions") for at in flat.groups]
        request = flat.request
        messages = request.messages
        if not is_plain and self._wire in WIRES:
            messages = fit_custom_calls(messages, target.wire)
            request = msgspec.structs.replace(request, messages=messages)
        if not is_plain:
            hosted = without_hosted(messages, target.wire)
            messages = hosted.messages
            self._adjusted += hosted.adjusted
        tools = fit_tools(request, target, self._takes, flat.places)
        form = fit_format(request, target)
        own = without_fitted(self._given.extra.get(self._wire or "", {}), self._wire or "", target)
        extra = self.own_extra(own)
        if tools.own_choice is not None:
            extra = {**extra, "tool_choice": tools.own_choice}
        self._adjusted += (*tools.adjusted, *form.adjusted)
        if form.is_emulated:
            messages = with_json_order(messages)
            self._filters.append(JsonKeeper)
        fitted = fit_messages(
            messages,
            target,
            tools.names,
            is_own=self._wire == target.wire,
            reads_documents=self._takes.documents,
        )
        self._adjusted += fitted.adjusted
        self._note_marks(request)
        wire = self._wire if self._wire in WIRES else None
        has_custom = bool(tools.custom) or (wire is not None and wire != target.wire and target.has_custom_tools)
        if tools.names or has_custom:
            names = {used: name for name, used in tools.names.items()}
            self._filters.append(lambda: ToolRestorer(names, tools.custom, wire))
        if flat.members:
            self._filters.append(lambda: NamespaceRestorer(flat.members))
        if request.n > 1:
            self._check_choices(request.n)
        if parameters.parallel_tool_calls is not None and not tools.tools:
            parameters = msgspec.structs.replace(parameters, parallel_tool_calls=None)
        return self.adapted(
            msgspec.structs.replace(
                request,
                messages=fitted.messages,
                tools=tools.tools,
                tool_choice=tools.choice,
                response_format=form.form,
                parameters=self.with_extra(parameters, extra),
            )
        )

    def _has_only_messages(self, request: ChatRequest) -> bool:
        """Whether there are no tools, no format and no fields of one wire to adapt."""
        has_form = request.response_format is not None or request.n > 1
        may_call = request.tools or request.tool_choice is not None or self._target.has_custom_tools
        return not (has_form or may_call or self._given.extra)

    def _check_choices(self, n: int) -> None:
        """Raise `UnsupportedError` where one response cannot have ``n`` choices."""
        if not self._takes.choices:
            raise unsupported(
                "n", f"n: a response of {self._target.who} has one choice, not {n}: send {n} requests, or omit n"
            )
        if any(not isinstance(each(), ToolRestorer | NamespaceRestorer) for each in self._filters):
            raise unsupported(
                "n",
                f"n: the stop sequences or JSON output emulated for {self._target.who} work for one choice only; "
                f"omit n, or send {n} requests",
            )

    def _note_marks(self, request: ChatRequest) -> None:
        """Record once which fields of the client's messages and tools only its own wire knows, such as cache marks."""
        wire = self._wire
        if wire is None or wire == self._target.wire:
            return
        marked: dict[str, None] = {}
        for message in request.messages:
            if message.role != "assistant":  # a response's fields are the vendor's
                for part in message.content:
                    marked |= dict.fromkeys((getattr(part, "extra", None) or {}).get(wire, ()))
        for tool in request.tools:
            marked |= dict.fromkeys((getattr(tool, "extra", None) or {}).get(wire, ()))
        self._adjusted += [Adjustment(name, "left_out") for name in marked]


def _is_plain(request: ChatRequest) -> bool:
    """Whether the request has only text and functions. Otherwise the conversation is searched several times for
    hosted, custom and grouped tools, which only some vendors have.
    """
    for message in request.messages:
        for part in message.content:
            if type(part) is not Text:
                return False
    return not request.tools or all(isinstance(tool, Tool) for tool in request.tools)


def _check_inputs(request: EmbeddingRequest, target: RequestTarget) -> None:
    """Raise `UnsupportedError` for token ids if the target reads only texts."""
    takes_ids = TOKEN_IDS.cell(target).action == "send"
    if not takes_ids and not all(isinstance(each, str) for each in request.inputs):
        raise unsupported("input", f"{target.who} embeds only texts, not token ids")


def _path(row: Parameter, target: RequestTarget) -> str | None:
    """The path of the parameter at the target. Cerebras uses the names of OpenAI's chat API."""
    wire = "openai_chat" if target.wire == "cerebras" else target.wire
    return row.wires.get(wire)
