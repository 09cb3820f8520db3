"""What a vendor's models take of a request, as one table per vendor that everything else reads.

Three layers, the first that says something wins, field by field: what the configuration says
(``[providers.NAME.capabilities."pattern"]``), what the vendor's own model list says, and the rows of
`llm_protocol.model_table`. A model that no layer knows takes everything: its vendor says itself what it refuses.

Request translation, selection, refusals, failover and the continuation of broken streams ask `ModelRules.of`. No other
code tests the name of a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypeAlias, final

import msgspec
from msgspec import Meta

from llm_protocol.requests import LLMProvider

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""All that wires know, from least to most."""

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Wire: TypeAlias = Literal["any", "responses", "responses_if_tools", "responses_if_tools_and_reasoning"]
Thinking: TypeAlias = Literal["effort", "adaptive", "budget"]
ThinkingOff: TypeAlias = Literal["effort", "disabled", "between_tools", "never"]
Sampling: TypeAlias = Literal["always", "without_reasoning", "never"]
Replay: TypeAlias = Literal["always", "same_model", "never"]

Tokens: TypeAlias = Annotated[int, Meta(ge=1)]

MAX_REMEMBERED: Final = 4096
"""Models of one provider whose rule is kept."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Some facts of a model; ``None`` says nothing. The fields are those of `ModelRule`.

    Raises ValueError for efforts that are not in order, from least to most.
    """

    wire: Wire | None = None
    thinking: tuple[Thinking, ...] | None = None
    efforts: tuple[Effort, ...] | None = None
    default_effort: Effort | None = None
    thinking_off: ThinkingOff | None = None
    thinking_off_up_to: Effort | None = None
    budgets: dict[Effort, Annotated[int, Meta(ge=0)] | None] | None = None
    forced_tools: bool | None = None
    sampling: Sampling | None = None
    stop: bool | None = None
    prefill: bool | None = None
    mid_system: bool | None = None
    replay: Replay | None = None
    signed_calls: bool | None = None
    vision: bool | None = None
    documents: bool | None = None
    audio: bool | None = None
    context_window: Tokens | None = None
    max_output_tokens: Tokens | None = None

    def __post_init__(self) -> None:
        if self.efforts and list(self.efforts) != sorted(set(self.efforts), key=EFFORTS.index):
            raise ValueError(f"efforts stand in the order {', '.join(EFFORTS)}, each once")


class ModelRule(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a model. The defaults are those of a model that takes everything."""

    wire: Wire = "any"
    """The API of OpenAI that the model needs: for everything, for function tools, or for function tools while it
    reasons. Where Chat Completions is the only one that can be had, the second means no tools and the third no
    reasoning with them.
    """
    thinking: tuple[Thinking, ...] | None = None
    """How it is told to think: by an effort, by leaving it to the model, by a budget of tokens. Empty: it does not
    think. ``None``: not known.
    """
    efforts: tuple[Effort, ...] = ()
    """The efforts that it takes, from least to most; empty: not known."""
    default_effort: Effort | None = None
    """What it does unasked."""
    thinking_off: ThinkingOff = "effort"
    """How it is told not to think: by the effort ``none``, if it has that; by a word of its own; not at all."""
    thinking_off_up_to: Effort | None = None
    """The highest effort that may stand beside that word; ``None``: any."""
    budgets: Mapping[str, int | None] = {}
    """The tokens that stand for an effort on models that count instead of grade; ``None``: no limit."""
    forced_tools: bool = True
    """Whether a tool call can be demanded."""
    sampling: Sampling = "always"
    """When it takes ``temperature``, ``top_p`` and ``top_k``."""
    stop: bool = True
    """Whether it takes stop sequences."""
    prefill: bool = False
    """Whether it goes on with a text when the conversation ends in a piece of its answer."""
    mid_system: bool = True
    """Whether system messages may stand among the others."""
    replay: Replay = "always"
    """To whom its earlier thinking may be shown again: to every model of the vendor, to the same model, to none."""
    signed_calls: bool = False
    """Whether a tool call in the history must bear a signature."""
    vision: bool | None = None
    documents: bool | None = None
    audio: bool | None = None
    """Whether it takes pictures, documents (PDF) and sound; ``None``: not known."""
    context_window: int | None = None
    max_output_tokens: int | None = None

    @property
    def reasons_with_tools(self) -> bool:
        """Whether, over Chat Completions, function tools and reasoning go together."""
        return self.wire == "any"

    def reasons(self, effort: str | None) -> bool:
        """Whether the model reasons when it is asked for ``effort``; ``None``: for nothing."""
        return (effort or self.default_effort) not in (None, "none")

    @property
    def can_stop_thinking(self) -> bool:
        """Whether it can be told not to think, as far as is known."""
        if self.thinking_off == "effort":
            return not self.efforts or "none" in self.efforts
        return self.thinking_off != "never"


_FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(Capabilities))

Row: TypeAlias = tuple[str, ModelRule]
"""A pattern for the beginning of a model's name in its short form (see `short_name`), and what holds for it."""


def short_name(model: str) -> str:
    """The name without what stands around it: folders, a cloud's prefixes, the account of a tuned model."""
    name = model.lower().rpartition("/")[2]
    if name.startswith("ft:"):
        name = name.split(":")[1]
    at = name.find("claude")
    return name if at < 0 else name[at:].replace(".", "-")


@final
class ModelRules:
    """The rules for the models of one provider, which is of kind ``vendor``.

    ``configured`` are facts by glob pattern of the model's whole name, in the order in which they count. `learn` is
    called by one writer, the catalog; `of` by everybody, synchronously.
    """

    __slots__ = ("_configured", "_listed", "_remembered", "_rows", "vendor")

    def __init__(self, vendor: LLMProvider, configured: Mapping[str, Capabilities] | None = None) -> None:
        self.vendor = vendor
        self._configured = [(re.compile(translate(glob)), facts) for glob, facts in (configured or {}).items()]
        self._listed: dict[str, Capabilities] = {}
        self._rows: tuple[tuple[re.Pattern[str], ModelRule], ...] | None = None
        self._remembered: dict[str, ModelRule] = {}

    def of(self, model: str) -> ModelRule:
        """What holds for ``model``, the vendor's own name of it."""
        try:
            return self._remembered[model]
        except KeyError:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            found = self._remembered[model] = self._look_up(model)
            return found

    def learn(self, listed: Mapping[str, Capabilities]) -> None:
        """From now on the vendor's list says this of its models, by name."""
        self._listed = dict(listed)
        self._remembered.clear()

    def _look_up(self, model: str) -> ModelRule:
        if self._rows is None:
            from llm_protocol.model_table import ROWS  # compiled when a model of the vendor is first asked about

            self._rows = tuple((re.compile(pattern), rule) for pattern, rule in ROWS.get(self.vendor, ()))
        name = short_name(model)
        rule = next((rule for pattern, rule in self._rows if pattern.match(name)), _FREE)
        said: dict[str, Any] = {}
        for facts in self._layers(model):
            for field in _FIELDS:
                if (value := getattr(facts, field)) is not None:
                    said.setdefault(field, value)
        return msgspec.structs.replace(rule, **said) if said else rule

    def _layers(self, model: str) -> list[Capabilities]:
        found = [facts for pattern, facts in self._configured if pattern.fullmatch(model)]
        return [*found, listed] if (listed := self._listed.get(model)) is not None else found


_FREE: Final = ModelRule()


@lru_cache(maxsize=len(LLMProvider))
def rules_of(vendor: LLMProvider) -> ModelRules:
    """The rules of the table alone, for who knows of no provider. Nobody may teach them anything."""
    return ModelRules(vendor)


def rule_of(vendor: LLMProvider, model: str) -> ModelRule:
    """The rule for ``model``, by the table alone."""
    return rules_of(vendor).of(model)


def nearest_effort(effort: str, efforts: Sequence[str]) -> str:
    """The greatest of ``efforts`` that is not above ``effort``, else the least; ``effort`` itself where ``efforts`` is
    empty or the word is none that wires know.
    """
    if not efforts or effort not in EFFORTS:
        return effort
    most = EFFORTS.index(effort)
    return max((each for each in efforts if EFFORTS.index(each) <= most), key=EFFORTS.index, default=efforts[0])
