"""The client side of Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import msgspec

from llm_protocol.adjustments import Adjustment
from llm_protocol.codec.decoding import BodyDecoder, read_whole
from llm_protocol.codec.fields import add_extra, own_fields, own_value, unsupported
from llm_protocol.codec.json import encode_json
from llm_protocol.codec.schemas import accepted_schema
from llm_protocol.codec.whole import counted_fields, decoded_count
from llm_protocol.content import (
    HostedTool,
    JsonObject,
    Message,
    Reasoning,
    ResponseFormat,
    Tool,
    ToolCall,
    ToolChoice,
)
from llm_protocol.dialect import Headers, ModelPage, RateLimits, WireRequest, WireResponse, post
from llm_protocol.events import Event
from llm_protocol.failures import Failure
from llm_protocol.model_facts import EFFORTS, ModelRule, Thinking, nearest_effort
from llm_protocol.model_rules import ModelRules, rules_of
from llm_protocol.parameters import TARGETS, Adapted, adapt
from llm_protocol.parameters.requested import name_of
from llm_protocol.requests import AnyRequest, ChatRequest, LLMProvider, Parameters, RequestType
from llm_protocol.wires.anthropic import errors, models
from llm_protocol.wires.anthropic.content import (
    conversation,
    encode_part,
    is_begun,
    is_old_style,
)
from llm_protocol.wires.anthropic.shapes import NAME, OLD_VERSION, VERSION
from llm_protocol.wires.anthropic.stream import AnthropicDecoder


@final
class Anthropic:
    """Speaks to Anthropic, or to a server with its Messages API; see `ClientDialect`."""

    name = NAME
    version = 2
    request_types = frozenset({RequestType.CHAT})

    def __init__(self, rules: ModelRules | None = None, api_version: str | None = None) -> None:
        """``api_version``: the ``anthropic-version`` to send. A client's own version takes
        precedence.
        """
        self.rules = rules or rules_of(LLMProvider.ANTHROPIC)
        self._api_version = api_version

    def auth_headers(self, key: str) -> tuple[tuple[str, str], ...]:
        """The header fields that carry the API key."""
        return (("x-api-key", key),)

    def adapt(self, request: AnyRequest) -> Adapted:
        """The request, adapted to what Anthropic accepts."""
        rule = self.rules.of(request.model)
        return _with_accepted_schema(_with_possible_thinking(adapt(request, TARGETS[NAME], rule), request, rule))

    def encode_request(self, request: AnyRequest, *, stream: bool) -> WireRequest:
        """The HTTP request for a chat."""
        if not isinstance(request, ChatRequest):
            raise unsupported("request_type", f"Anthropic has no {request.request_type} endpoint")
        return encode_chat(request, self.rules.of(request.model), stream=stream, api_version=self._api_version)

    def stream_decoder(self, request: AnyRequest) -> BodyDecoder:  # noqa: ARG002
        """A decoder for a streamed response."""
        return BodyDecoder(AnthropicDecoder())

    def decode_response(
        self,
        request: AnyRequest,  # noqa: ARG002
        response: WireResponse,
        ignored: set[str] | None = None,
    ) -> list[Event]:
        """The events of a whole response."""
        return read_whole(AnthropicDecoder(), response.body, ignored)

    def count_request(self, request: AnyRequest) -> WireRequest:
        """See `TokenCounter`."""
        wire = self.encode_request(request, stream=False)
        body = encode_json(counted_fields(wire, _COUNTED))
        return wire._replace(path="/v1/messages/count_tokens", body=body)

    def decode_count(self, body: bytes) -> int:
        """See `TokenCounter`."""
        return decoded_count(body, "input_tokens")

    def decode_error(self, response: WireResponse) -> Failure:
        """The failure for a response with an error status."""
        return errors.decode_error(response)

    def rate_limits(self, headers: Headers) -> RateLimits | None:
        """The limits that the headers report; ``None`` if they report none."""
        return errors.rate_limits(headers)

    def models_request(self, page: str | None) -> WireRequest:
        """The request for a page of the model list."""
        return models.models_request(page, self._api_version)

    def decode_models(self, body: bytes) -> ModelPage:
        """A page of the model list. Raises `ProtocolError`."""
        return models.decode_models(body)


def _with_accepted_schema(adapted: Adapted) -> Adapted:
    """The request with the schema of its response in the vendor's subset, unless its client speaks this wire."""
    request = adapted.request
    form = request.response_format if isinstance(request, ChatRequest) else None
    if form is None or form.schema is None or request.parameters.wire == NAME:
        return adapted
    if (schema := accepted_schema(form.schema)) == form.schema:
        return adapted
    form = msgspec.structs.replace(form, schema=schema)
    told = Adjustment("response_format", "rewritten", "a schema of closed objects")
    return adapted._replace(
        request=msgspec.structs.replace(request, response_format=form), adjusted=(*adapted.adjusted, told)
    )


def _with_possible_thinking(adapted: Adapted, given: AnyRequest, rule: ModelRule) -> Adapted:
    """The request without thinking where the vendor refuses it, unless its client speaks this wire. The vendor refuses
    thinking together with a forced call; and with a budget, if the turn was begun without thinking, as by another
    model.
    """
    request, parameters = adapted.request, given.parameters
    if not isinstance(request, ChatRequest) or parameters.wire == NAME:
        return adapted
    lost = [name for name in _THINKING if getattr(parameters, name) not in (None, 0, "none")]
    if not lost or not rule.thinking or not rule.can_stop_thinking:
        return adapted
    choice = request.tool_choice
    if choice is None or choice.mode not in ("required", "named"):
        thinking = _thinking(_Thinking(request.parameters, rule), rule) or {}
        if thinking.get("type") != "enabled" or not _is_amid_calls(request.messages):
            return adapted
    effort = request.parameters.reasoning_effort if _knows(rule, "effort") else None
    names = {name_of(name, parameters.wire): name for name in lost}
    told = [
        Adjustment(own, "left_out")
        if effort is None or name == "reasoning_summary"
        else Adjustment(own, "translated", f"{effort}, without thinking")
        for own, name in names.items()
    ]
    changed = msgspec.structs.replace(request.parameters, reasoning_budget=0, reasoning_summary=None)
    return adapted._replace(
        request=msgspec.structs.replace(request, parameters=changed),
        adjusted=(*(each for each in adapted.adjusted if each.parameter not in names), *told),
    )


def _is_amid_calls(messages: Sequence[Message]) -> bool:
    """Whether the model's turn continues after results of calls, and itself contains no thinking."""
    answered = has_calls = has_thought = False
    for message in messages:
        if message.role == "tool":
            answered = True
        elif message.role == "assistant":
            own = any(isinstance(part, Reasoning) and encode_part(part, "") is not None for part in message.content)
            has_thought = own or (answered and has_thought)
            has_calls = any(isinstance(part, ToolCall) for part in message.content)
            answered = False
    return answered and has_calls and not has_thought


_THINKING = ("reasoning_effort", "reasoning_budget", "reasoning_summary")

_SAMPLING = ("temperature", "top_p", "top_k")

DEFAULT_MAX_TOKENS = 16_384
"""The value of ``max_tokens`` (at most the model's own limit) if the caller set none, because the vendor requires the
field. It is below the vendor's limit for responses that are not streamed, and above nearly every response. A thinking
budget is added to it.
"""

_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking")
"""The fields that the vendor's token count accepts; it refuses all others."""

MIN_THINKING_BUDGET = 1_024


def encode_chat(request: ChatRequest, rule: ModelRule, *, stream: bool, api_version: str | None = None) -> WireRequest:
    """The HTTP request."""
    parameters = request.parameters
    given = _Thinking(parameters, rule)
    own = parameters.extra.get(NAME, {})
    thinking = own["thinking"] if "thinking" in own else _thinking(given, rule)
    sampling = {name: value for name in _SAMPLING if (value := getattr(parameters, name)) is not None}
    system, messages = conversation(request.messages, rule)
    if not rule.prefill and messages and is_begun(messages[-1]):
        raise unsupported(
            "messages", f"{request.model} cannot continue its own text: the last message must have the role user"
        )
    body: JsonObject = {
        "model": request.model,
        "max_tokens": _max_tokens(parameters, rule, thinking),
        "messages": messages,
        "system": system,
        "stream": stream,
        **sampling,
        "stop_sequences": list(parameters.stop) or None,
        "tools": [_encode_tool(tool, f"tools[{at}]") for at, tool in enumerate(request.tools)] or None,
        "tool_choice": _encode_choice(request.tool_choice, parameters, has_tools=bool(request.tools)),
        "thinking": thinking,
        "output_config": _output_config(given, rule, request.response_format),
        "metadata": {"user_id": parameters.user} if parameters.user is not None else None,
    }
    body = {name: _with_own(value, own.get(name)) for name, value in body.items() if value is not None}
    add_extra(body, parameters, NAME)
    needed = OLD_VERSION if sampling or is_old_style(messages) else VERSION
    version = parameters.headers.get("anthropic-version", api_version or needed)
    present = {name: value for name, value in body.items() if value is not None}
    return post("/v1/messages", present, ("anthropic-version", version))


def _with_own(ours: Any, own: Any) -> Any:
    """Merge the vendor fields that the caller set into an object with fields of the runtime, such as
    ``output_config``.
    """
    return {**own, **ours} if isinstance(ours, dict) and isinstance(own, dict) else ours


class _Thinking:
    """The caller's reasoning settings in the form that the model accepts: ``off``, ``effort`` and ``budget``. Some
    models always think, and refuse a request to turn it off.
    """

    def __init__(self, parameters: Parameters, rule: ModelRule) -> None:
        self.parameters = parameters
        self.budget, effort = parameters.reasoning_budget or None, parameters.reasoning_effort
        self.off = parameters.reasoning_budget == 0 or (effort == "none" and self.budget is None)
        if self.off and not rule.can_stop_thinking:
            self.off, effort = False, "none"  # the lowest effort that the model has
        elif effort == "none":
            effort = None
        self.effort = None if effort is None else nearest_effort(effort, rule.efforts)
        if self.off and self.effort is not None and rule.thinking_off_up_to is not None:
            self.effort = min(self.effort, rule.thinking_off_up_to, key=EFFORTS.index)


# ---------------------------------------------------------------- parameters


def _max_tokens(parameters: Parameters, rule: ModelRule, thinking: Any) -> int:
    if parameters.max_output_tokens is not None:
        return parameters.max_output_tokens
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    wanted = DEFAULT_MAX_TOKENS + (budget if isinstance(budget, int) else 0)
    return wanted if rule.max_output_tokens is None else min(wanted, rule.max_output_tokens)


def _thinking(given: _Thinking, rule: ModelRule) -> JsonObject | None:
    thinking = _thinking_mode(given, rule)
    if given.parameters.reasoning_summary is None:
        return thinking
    if thinking is None and _knows(rule, "adaptive"):
        thinking = {"type": "adaptive"}
    if thinking is None or thinking["type"] in _OFF:
        return thinking
    return {**thinking, "display": "summarized"}


def _knows(rule: ModelRule, way: Thinking) -> bool:
    return rule.thinking is not None and way in rule.thinking


_OFF = {"disabled": "disabled", "between_tools": "between_tools"}
"""The values that turn thinking off, by `ModelRule.thinking_off`; any other rule uses the default value."""


def _thinking_mode(given: _Thinking, rule: ModelRule) -> JsonObject | None:
    effort, budget = given.effort, given.budget
    if given.off:
        return {"type": _OFF.get(rule.thinking_off, "disabled")} if rule.thinking else None
    if budget is not None:
        return {"type": "enabled", "budget_tokens": budget}
    if effort is None:
        return None
    if _knows(rule, "adaptive"):
        return {"type": "adaptive"}
    if rule.thinking == ("effort",):
        return None
    tokens = rule.budgets.get(effort)
    if tokens is None or not _knows(rule, "budget"):
        return None
    return {"type": "enabled", "budget_tokens": _fitting_budget(given, tokens)}


def _fitting_budget(given: _Thinking, budget: int) -> int:
    """Return the budget, reduced if necessary. A budget that the runtime chose must leave room in ``max_tokens``, or
    the vendor refuses the whole request.
    """
    limit = given.parameters.max_output_tokens
    return budget if limit is None else max(MIN_THINKING_BUDGET, min(budget, limit // 2))


def _output_config(given: _Thinking, rule: ModelRule, form: ResponseFormat | None) -> JsonObject | None:
    config: JsonObject = {}
    effort = given.effort
    if _knows(rule, "effort") and effort is not None:
        config["effort"] = "low" if effort == "minimal" else effort
    if form is not None and form.type == "json_schema":
        config["format"] = {"type": "json_schema", "schema": form.schema or {"type": "object"}}
    return config or None


# ---------------------------------------------------------------- tools


def _encode_tool(tool: Tool | HostedTool, where: str) -> JsonObject:
    if isinstance(tool, HostedTool):
        return own_value(tool, where, NAME, "Anthropic")
    coded: JsonObject = {"name": tool.name, "input_schema": tool.parameters or {"type": "object", "properties": {}}}
    if tool.description is not None:
        coded["description"] = tool.description
    if tool.strict is not None:
        coded["strict"] = tool.strict
    return {**coded, **own_fields(tool.extra, NAME)}


_CHOICES = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}


def _encode_choice(choice: ToolChoice | None, parameters: Parameters, *, has_tools: bool) -> JsonObject | None:
    one_at_a_time = parameters.parallel_tool_calls is False and has_tools
    if choice is None and not one_at_a_time:
        return None
    coded: JsonObject = {"type": _CHOICES[choice.mode if choice else "auto"]}
    if choice is not None and choice.mode == "named":
        coded["name"] = choice.name
    if parameters.parallel_tool_calls is not None and has_tools and coded["type"] != "none":
        coded["disable_parallel_tool_use"] = one_at_a_time
    return coded
