"""The parameters that one model accepts at a target, and the nearest values to those requested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from llm_protocol.adjustments import Adjustment
from llm_protocol.content import Tool
from llm_protocol.model_facts import EFFORTS, ModelRule, nearest_effort
from llm_protocol.parameters.requested import CANONICAL
from llm_protocol.parameters.rows import EFFORT_BUDGETS, effort_of_budget
from llm_protocol.parameters.targets import RequestTarget
from llm_protocol.requests import ChatRequest, LLMRequest, Parameters, RequestType

REASONING: Final = frozenset(("reasoning_effort", "reasoning_budget"))

_WITHOUT_TEXT: Final = frozenset(("user",))
"""The only parameters of requests whose response has no text: embeddings, and images of models that are not chat
models.
"""


class ModelTakes(NamedTuple):
    """The settings that a model accepts.

    ``efforts``: the efforts, from least to most; empty if the model has none, ``None`` if it accepts any word.
    ``budgets``: the least and the most thinking tokens; ``None`` if it has no budget. ``budget_of``: the budget for
    each effort, for a model that has budgets only. ``zero_is_off``: whether the wire turns thinking off by a budget of
    0, whatever budgets the model has. ``within_output``: whether a budget must leave room in ``max_output_tokens``.
    ``both``: whether an effort and a budget can be combined. ``has_off``: whether thinking can be turned off.
    ``default_effort``: the effort without a setting, which tells whether the model thinks by default.

    ``samples``: whether the model accepts ``temperature``, ``top_p`` and ``top_k``; ``only_samples_unthinking``:
    whether only while it does not think. ``forced_tools``: whether a request can require a tool call. ``stops``:
    whether it accepts stop sequences. ``documents``: whether it accepts documents, as far as is known.
    ``parallel_calls``: whether it can make several tool calls in one response, as far as is known. ``choices``: whether
    one response can have several choices.
    """

    efforts: tuple[str, ...] | None = None
    budgets: tuple[int, int] | None = None
    budget_of: Mapping[str, int | None] = EFFORT_BUDGETS
    zero_is_off: bool = False
    within_output: bool = False
    both: bool = False
    has_off: bool = True
    samples: bool = True
    only_samples_unthinking: bool = False
    default_effort: str | None = None
    forced_tools: bool = True
    stops: bool = True
    documents: bool = True
    parallel_calls: bool = True
    choices: bool = False


_ANY_BUDGET: Final = 1_000_000
"""More thinking tokens than any model accepts."""


def takes_of(rule: ModelRule, target: RequestTarget, request: LLMRequest) -> ModelTakes:
    """Return the settings that the request's model accepts at ``target``."""
    thinking = rule.thinking
    has_efforts = not target.limits.only_budgets and "reasoning_effort" not in target.lacks
    graded = has_efforts and (thinking is None or "effort" in thinking or "adaptive" in thinking)
    return ModelTakes(
        efforts=(rule.efforts or None) if graded else (),
        budgets=_budgets(rule, target),
        budget_of=rule.budgets or EFFORT_BUDGETS,
        zero_is_off=target.limits.least_budget is not None,
        within_output=target.limits.budget_within_output,
        both=target.limits.budget_within_output and graded,
        has_off=rule.can_stop_thinking,
        samples=rule.sampling != "never",
        only_samples_unthinking=rule.sampling == "without_reasoning",
        default_effort="none" if stops_reasoning(rule, target, request) else rule.default_effort,
        forced_tools=rule.forced_tools,
        stops=rule.stop,
        documents=rule.documents is not False,
        parallel_calls=rule.parallel_calls is not False,
        choices=bool(target.has_choices if target.has_choices is None or rule.choices is None else rule.choices),
    )


def _budgets(rule: ModelRule, target: RequestTarget) -> tuple[int, int] | None:
    limits, thinking = target.limits, rule.thinking
    if limits.least_budget is None or thinking == () or "reasoning_budget" in target.lacks:
        return None
    if thinking is not None and "budget" not in thinking and not limits.only_budgets:
        return (0, _ANY_BUDGET) if limits.budget_for_effort else None
    known = [tokens for tokens in rule.budgets.values() if tokens is not None]
    least = max(limits.least_budget, rule.budgets.get("none") or 0)
    if limits.budget_within_output:
        return least, rule.max_output_tokens or _ANY_BUDGET
    return least, max(known) if known and len(known) == len(rule.budgets) else _ANY_BUDGET


def stops_reasoning(rule: ModelRule, target: RequestTarget, request: LLMRequest) -> bool:
    """Whether to turn reasoning off, because the model refuses function tools with it over Chat Completions.

    An effort that the caller requested is kept: the vendor's refusal then moves the request to the next candidate.
    """
    if target.wire != "openai_chat" or rule.reasons_with_tools or "none" not in rule.efforts:
        return False
    given = request.parameters
    is_requested = given.reasoning_effort is not None or given.reasoning_budget is not None
    is_own = "reasoning_effort" in given.extra.get(target.wire, {})
    tools = request.tools if isinstance(request, ChatRequest) else ()
    return (
        not is_requested
        and not is_own
        and rule.default_effort != "none"
        and any(isinstance(tool, Tool) for tool in tools)
    )


def taken_by_type(request: LLMRequest, target: RequestTarget) -> frozenset[str] | None:
    """Return the parameters that a request of this type may have at the target; ``None``: all."""
    match request.request_type:
        case RequestType.EMBEDDING:
            return _WITHOUT_TEXT
        case RequestType.IMAGE_GENERATION if target.wire != "gemini":  # Gemini's image models are chat models
            return _WITHOUT_TEXT
        case RequestType.COMPLETION:
            return _OF_COMPLETIONS
        case _:
            return None


_OF_COMPLETIONS: Final = (
    frozenset(row.name for row in CANONICAL) - REASONING - {"parallel_tool_calls", "reasoning_summary"}
)


class FittedReasoning(NamedTuple):
    """How much the model is to think, in the form that it accepts."""

    effort: str | None
    budget: int | None
    adjusted: tuple[Adjustment, ...] = ()


def fit_reasoning(given: Parameters, takes: ModelTakes, *, own: bool = False) -> FittedReasoning:
    """Return those settings of the model that are nearest to the requested ones, and the changes. ``own``: the client
    uses the target's wire, so its budget is not adjusted to its other parameters.
    """
    effort, budget, output = given.reasoning_effort, given.reasoning_budget, given.max_output_tokens
    if budget is not None and takes.budgets is not None:
        return _counted(effort, budget, takes, None if own else output)
    if budget == 0 and takes.zero_is_off and takes.has_off and takes.efforts != ():
        graded = FittedReasoning(None, None) if effort is None else _graded("reasoning_effort", effort, effort, takes)
        return FittedReasoning(graded.effort, 0, graded.adjusted)
    if budget is not None:
        wanted = effort if effort is not None else effort_of_budget(budget)
        return _graded("reasoning_budget", budget, wanted, takes, output)
    return FittedReasoning(None, None) if effort is None else _graded("reasoning_effort", effort, effort, takes, output)


def _counted(effort: str | None, budget: int, takes: ModelTakes, output: int | None) -> FittedReasoning:
    assert takes.budgets is not None
    if budget == 0 and not takes.has_off and takes.efforts:
        return _graded("reasoning_budget", budget, "none", takes)
    fitting = 0 if budget == 0 and takes.has_off else _within(budget, takes, output)
    adjusted = () if fitting == budget else (Adjustment("reasoning_budget", "translated", fitting),)
    if effort is None:
        return FittedReasoning(None, fitting, adjusted)
    if not takes.both or not takes.efforts:  # the budget is more precise
        return FittedReasoning(None, fitting, (*adjusted, Adjustment("reasoning_effort", "left_out")))
    graded = _graded("reasoning_effort", effort, effort, takes)
    return FittedReasoning(graded.effort, fitting, (*adjusted, *graded.adjusted))


def _within(budget: int, takes: ModelTakes, output: int | None) -> int:
    """``budget``, adjusted to the limits of the model, with room for ``output`` tokens if the wire requires it."""
    assert takes.budgets is not None
    least, most = takes.budgets
    if takes.within_output and output is not None and budget >= output:
        most = min(most, output // 2)
    return max(min(budget, most), least)


def _graded(name: str, requested: Any, effort: str, takes: ModelTakes, output: int | None = None) -> FittedReasoning:
    """``effort``, or the budget that replaces it. ``requested`` is the client's value of the parameter ``name``."""
    if effort not in EFFORTS:
        known = takes.efforts is None
        return FittedReasoning(effort if known else None, None, () if known else (Adjustment(name, "left_out"),))
    if takes.efforts == () and takes.budgets is None:
        return FittedReasoning(None, None, () if effort == "none" else (Adjustment(name, "left_out"),))
    if takes.efforts == ():
        return _as_budget(name, effort, takes, output)
    fitting = effort
    if takes.efforts and not (effort == "none" and takes.has_off):
        fitting = nearest_effort(effort, takes.efforts)
    return FittedReasoning(fitting, None, () if fitting == requested else (Adjustment(name, "translated", fitting),))


def _as_budget(name: str, effort: str, takes: ModelTakes, output: int | None) -> FittedReasoning:
    assert takes.budgets is not None
    least = takes.budgets[0]
    if effort == "none":
        off = takes.budget_of.get(effort) or (0 if takes.has_off else least)
        return FittedReasoning(None, off, () if off == 0 else (Adjustment(name, "translated", off),))
    budget = takes.budget_of.get(effort)
    if budget is None:  # no limit
        return FittedReasoning(effort, None)
    if takes.within_output and output is not None:
        budget = min(budget, output // 2)
    budget = _within(budget, takes, None)
    return FittedReasoning(None, budget, (Adjustment(name, "translated", budget),))
