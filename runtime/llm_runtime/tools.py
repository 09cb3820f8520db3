"""Tools made from functions, and the loop in which a model calls them.

`tool` derives the schema from a signature. `ToolLoop` is the loop without I/O: it decides on the next request, the
calls to run, and the end. `RequestMethods.run_tools` runs it on every host.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar, get_type_hints, overload

import msgspec

from llm_protocol.content import Audio, Document, HostedTool, Image, Message, Text, Tool, ToolCall, ToolResult
from llm_protocol.response import LLMResponse
from llm_runtime.schemas import DoesNotFitError, fits, schema_of

P = ParamSpec("P")
R = TypeVar("R")

NOT_APPROVED = "This call was not approved."


class FunctionTool(Generic[P, R]):
    """A function that a model can call. Calling the `FunctionTool` calls the function.

    The model sees its name, the first paragraph of its docstring, and its annotated parameters; describe a parameter
    with ``Annotated[str, msgspec.Meta(description="…")]``.
    """

    def __init__(self, fn: Callable[P, R], name: str | None, description: str | None, *, strict: bool | None) -> None:
        self.fn = fn
        called = name or str(getattr(fn, "__name__", "tool"))
        self.__name__ = called
        self.__doc__ = fn.__doc__
        self._arguments = _arguments(fn)
        if description is None:
            description = (inspect.getdoc(fn) or "").split("\n\n")[0].replace("\n", " ") or None
        self.tool = Tool(name=called, description=description, parameters=schema_of(self._arguments), strict=strict)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function. Another function may still return an awaitable, which is then
        awaited.
        """
        return inspect.iscoroutinefunction(self.fn)

    def arguments(self, call: ToolCall) -> dict[str, Any]:
        """The arguments of a model's call, converted to their types. Raises `DoesNotFitError`."""
        value = fits(self._arguments, call.arguments.strip() or "{}")
        return {name: getattr(value, name) for name in self._arguments.__struct_fields__}


@overload
def tool(fn: Callable[P, R], /) -> FunctionTool[P, R]: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None, strict: bool | None = None
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...
def tool(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
) -> Any:
    """Make a function a tool: ``@tool``, or ``@tool(name=…)``. The function may be async, except for
    `llm_runtime.sync`.

    Raises `TypeError` for a parameter without a type, or with a type that has no JSON schema.
    """
    if fn is None:
        return lambda fn: FunctionTool(fn, name, description, strict=strict)
    return FunctionTool(fn, name, description, strict=strict)


AnyTool: TypeAlias = FunctionTool[..., Any] | Callable[..., Any] | HostedTool
"""What `run_tools` accepts: functions, with or without ``@tool``, and a vendor's own tools."""


class ToolStarted(msgspec.Struct, frozen=True):
    """A tool is about to run."""

    call: ToolCall


class ToolEnded(msgspec.Struct, frozen=True):
    """A tool has ended, or could not run (``result.is_error``)."""

    call: ToolCall
    result: ToolResult


class ToolRun(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a loop: the last response, the whole conversation for the next turn, and why it ended.

    ``stopped``: ``done`` means that the model calls no more tools, ``rounds`` that ``max_rounds`` requests were made,
    ``asked`` that the caller's ``until`` ended the loop. In the last two cases the calls of the last response have no
    results, and ``messages`` ends before that response. ``cost`` is the sum of all rounds, ``None`` if one of them is
    unknown.
    """

    response: LLMResponse
    messages: tuple[Message, ...]
    rounds: int
    stopped: Literal["done", "rounds", "asked"]
    cost: float | None


class ToolLoop:
    """The state of the loop. `take_response` returns the calls to run after a response, `answer` takes the results."""

    def __init__(self, messages: Sequence[Message], tools: Sequence[AnyTool], max_rounds: int, parallel: int) -> None:
        if parallel < 1:
            raise ValueError(f"parallel must be at least 1, not {parallel}")
        made = [each if isinstance(each, FunctionTool | HostedTool) else tool(each) for each in tools]
        self._functions: Mapping[str, FunctionTool[..., Any]] = {
            each.tool.name: each for each in made if isinstance(each, FunctionTool)
        }
        names = Counter(each.tool.name for each in made if isinstance(each, FunctionTool))
        if doubled := [name for name, times in names.items() if times > 1]:
            raise ValueError(f"there are two tools with the name {doubled[0]}: each needs its own")
        self.tools = tuple(each.tool if isinstance(each, FunctionTool) else each for each in made)
        self.messages = tuple(messages)
        self._max_rounds = max_rounds
        self._rounds = 0
        self._cost: float | None = 0.0
        self._response: LLMResponse | None = None
        self._stopped: Literal["done", "rounds", "asked"] = "done"

    def take_response(self, response: LLMResponse, *, stop: bool = False) -> tuple[ToolCall, ...]:
        """Count a round, add its cost and its message, and return the calls to run; empty when the loop is over."""
        self._response = response
        self._rounds += 1
        self._cost = None if self._cost is None or response.cost is None else self._cost + response.cost
        calls = response.tool_calls
        if calls and stop:
            self._stopped, calls = "asked", ()
        elif calls and self._rounds >= self._max_rounds:
            self._stopped, calls = "rounds", ()
        if calls or self._stopped == "done":
            self.messages = (*self.messages, response.message)
        return calls

    def answer(self, results: Sequence[ToolResult]) -> None:
        """Add the results of all calls, in the order of the calls."""
        self.messages = (*self.messages, Message("tool", tuple(results)))

    @property
    def functions(self) -> Iterable[FunctionTool[..., Any]]:
        """The tools that are functions."""
        return self._functions.values()

    def function(self, call: ToolCall) -> FunctionTool[..., Any] | None:
        """Return the tool that ``call`` names; ``None`` if it is no function of this loop."""
        return self._functions.get(call.name)

    def unknown(self, call: ToolCall) -> ToolResult:
        """The result of a call to an unknown tool, for the model."""
        return call.result(f"There is no tool {call.name!r}. There are: {', '.join(self._functions)}.", is_error=True)

    def ended(self) -> ToolRun:
        """The result of the loop, once `take_response` returned nothing."""
        assert self._response is not None
        return ToolRun(
            response=self._response,
            messages=self.messages,
            rounds=self._rounds,
            stopped=self._stopped,
            cost=self._cost,
        )


def result_of(call: ToolCall, value: object) -> ToolResult:
    """A tool's return value, as the model receives it: strings and parts unchanged, everything else as JSON."""
    if isinstance(value, ToolResult):
        return value
    if isinstance(value, str):
        return call.result(value)
    parts = value if isinstance(value, list | tuple) else (value,)
    content = tuple(part for part in parts if isinstance(part, Text | Image | Document | Audio))
    if content and len(content) == len(parts):
        return ToolResult(call_id=call.id, name=call.name, content=content)
    try:
        return call.result(msgspec.json.encode(value, enc_hook=_encoded).decode())
    except TypeError as exc:
        return call.result(f"The tool returned a value that cannot be converted to JSON: {exc}", is_error=True)


def failed(call: ToolCall, exc: Exception) -> ToolResult:
    """Return the result, for the model, of a tool that raised an exception."""
    if isinstance(exc, DoesNotFitError):
        return call.result(f"The arguments do not fit: {exc}", is_error=True)
    return call.result(f"{type(exc).__name__}: {exc}", is_error=True)


class ToolTooSlow(Exception):  # noqa: N818
    """A tool took longer than its limit."""


def too_slow(call: ToolCall, seconds: float, *, is_stopped: bool) -> ToolResult:
    """The result of a tool that took too long, for the model. A function in a thread cannot be stopped, and may still
    have its effect.
    """
    what = " and was stopped." if is_stopped else ". It may still be running."
    return call.result(f"The tool took longer than {seconds:g} s{what}", is_error=True)


def _encoded(value: object) -> object:
    dump = getattr(value, "model_dump", None)  # pydantic's
    if dump is not None:
        encoded: object = dump(mode="json")
        return encoded
    raise TypeError(f"{type(value).__name__} cannot be converted to JSON")


def _arguments(fn: Callable[..., Any]) -> type[msgspec.Struct]:
    name = getattr(fn, "__name__", "tool")
    hints = get_type_hints(fn, include_extras=True)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"the tool {name} has the parameter {parameter}, which cannot be passed by name")
        if parameter.name not in hints:
            raise TypeError(
                f"the tool {name} has no type for {parameter.name}: write for example {parameter.name}: str"
            )
        default = () if parameter.default is parameter.empty else (parameter.default,)
        fields.append((parameter.name, hints[parameter.name], *default))
    return msgspec.defstruct(f"{name}_arguments", fields, forbid_unknown_fields=True, kw_only=True)


Approve: TypeAlias = Callable[[ToolCall], bool | str | Awaitable[bool | str]]
"""A function that decides whether a call may run. It returns true, false, or a string: the reason for a refusal, which
is passed to the model.
"""


def refusal(call: ToolCall, verdict: bool | str) -> ToolResult | None:
    """Return the result that tells the model that ``call`` was not approved; ``None`` if it was (``verdict`` is
    ``True``).
    """
    if verdict is True:
        return None
    return call.result(verdict if isinstance(verdict, str) else NOT_APPROVED, is_error=True)


async def run_call(
    loop: ToolLoop,
    call: ToolCall,
    run: Callable[[FunctionTool[..., Any], dict[str, Any]], Awaitable[object]],
    approve: Approve | None,
    on_event: Callable[[Any], object],
    seconds: float,
) -> ToolResult:
    """Run one call, and return its result. ``run`` runs a function within ``seconds``, or raises `ToolTooSlow`.

    Raises only the exceptions of ``approve`` and ``on_event``.
    """
    function = loop.function(call)
    if function is None:
        return loop.unknown(call)
    try:
        arguments = function.arguments(call)
    except DoesNotFitError as exc:
        return failed(call, exc)
    if approve is not None:
        verdict = approve(call)
        refused = refusal(call, await verdict if inspect.isawaitable(verdict) else verdict)
        if refused is not None:
            return refused
    on_event(ToolStarted(call))
    try:
        result = result_of(call, await run(function, arguments))
    except ToolTooSlow:
        result = too_slow(call, seconds, is_stopped=function.is_async)
    except Exception as exc:  # an error of the program's tool; the model may find a way around it
        result = failed(call, exc)
    on_event(ToolEnded(call, result))
    return result
