"""What may be known of a model: the columns of the table in `llm_protocol.model_rules`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""All efforts that wires have, from least to most."""

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Wire: TypeAlias = Literal["any", "chat", "responses", "responses_if_tools", "responses_if_tools_and_reasoning"]
Thinking: TypeAlias = Literal["effort", "adaptive", "budget"]
ThinkingOff: TypeAlias = Literal["effort", "disabled", "between_tools", "never"]
Sampling: TypeAlias = Literal["always", "without_reasoning", "never"]
Replay: TypeAlias = Literal["always", "same_model", "never"]

Tokens: TypeAlias = Annotated[int, Meta(ge=1)]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Some facts of a model; ``None`` means unknown. The fields are those of `ModelRule`.

    Raises ValueError for efforts that are not in order, from least to most.
    """

    wire: Wire | None = None
    thinking: tuple[Thinking, ...] | None = None
    efforts: tuple[Effort, ...] | None = None
    default_effort: Effort | None = None
    thinking_off: ThinkingOff | None = None
    thinking_off_up_to: Effort | None = None
    budgets: dict[Effort, Annotated[int, Meta(ge=0)] | None] | None = None
    tools: bool | None = None
    parallel_calls: bool | None = None
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
    draws: bool | None = None
    choices: bool | None = None
    base64_vectors: bool | None = None
    context_window: Tokens | None = None
    max_output_tokens: Tokens | None = None

    def __post_init__(self) -> None:
        if self.efforts and list(self.efforts) != sorted(set(self.efforts), key=EFFORTS.index):
            raise ValueError(f"efforts must be in the order {', '.join(EFFORTS)}, each once")


class ModelRule(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of a model. The defaults are those of a model that accepts everything."""

    wire: Wire = "any"
    """The API of OpenAI that the model needs: Chat Completions (``"chat"``), or Responses: for everything, for function
    tools, or for function tools while it reasons. Where Chat Completions is the only one that can be had, the last two
    mean no tools, and no reasoning with them.
    """
    thinking: tuple[Thinking, ...] | None = None
    """How reasoning is requested: by an effort, by leaving it to the model, by a budget of tokens. Empty: it does not
    reason. ``None``: unknown.
    """
    efforts: tuple[Effort, ...] = ()
    """The efforts that it accepts, from least to most; empty: unknown."""
    default_effort: Effort | None = None
    """What it does by default."""
    thinking_off: ThinkingOff = "effort"
    """How reasoning is disabled: by the effort ``none``, if the model has it; by a separate option; or not at all."""
    thinking_off_up_to: Effort | None = None
    """The highest effort that may be combined with that option; ``None``: any."""
    budgets: Mapping[str, int | None] = {}
    """The token budgets for efforts, on models that have budgets only; ``None``: no limit."""
    tools: bool | None = None
    """Whether it calls function tools; ``None``: unknown."""
    parallel_calls: bool | None = None
    """Whether it calls several tools at once; ``None``: unknown."""
    forced_tools: bool = True
    """Whether a tool call can be demanded."""
    sampling: Sampling = "always"
    """When it accepts ``temperature``, ``top_p`` and ``top_k``."""
    stop: bool = True
    """Whether it accepts stop sequences."""
    prefill: bool = False
    """Whether it continues a conversation that ends with the beginning of its response."""
    mid_system: bool = True
    """Whether system messages may stand among the others."""
    replay: Replay = "always"
    """Which models its earlier reasoning may be sent to: every model of the vendor, the same model, none."""
    signed_calls: bool = False
    """Whether a tool call in the history must bear a signature."""
    vision: bool | None = None
    """Whether it accepts images."""
    documents: bool | None = None
    """Whether it accepts documents (PDF)."""
    audio: bool | None = None
    """Whether it accepts audio. ``None``, here and in the two above: unknown."""
    draws: bool = False
    """Whether its chat responses can contain images."""
    choices: bool | None = None
    """Whether one chat response can have several choices (``n``). ``None``: as its vendor's usually can."""
    base64_vectors: bool = True
    """Whether its embeddings are available in base64, a third of the size, if the vendor has that."""
    context_window: int | None = None
    """Its context window: the tokens of prompt and response together."""
    max_output_tokens: int | None = None
    """The most tokens of a response."""

    @property
    def reasons_with_tools(self) -> bool:
        """Whether, over Chat Completions, function tools and reasoning go together."""
        return self.wire in ("any", "chat")

    def reasons(self, effort: str | None) -> bool:
        """Return whether the model reasons if the request sets ``effort``; ``None``: it sets none."""
        return (effort or self.default_effort) not in (None, "none")

    @property
    def can_stop_thinking(self) -> bool:
        """Whether its reasoning can be disabled, as far as is known."""
        if self.thinking_off == "effort":
            return not self.efforts or "none" in self.efforts
        return self.thinking_off != "never"


Row: TypeAlias = tuple[str, ModelRule]
"""A pattern for the beginning of a model's name in its short form (see `short_name`), and what holds for it."""


def nearest_effort(effort: str, efforts: Sequence[str]) -> str:
    """The greatest of ``efforts`` that is not above ``effort``, else the least; ``effort`` itself if ``efforts`` is
    empty or the word is unknown.
    """
    if not efforts or effort not in EFFORTS:
        return effort
    most = EFFORTS.index(effort)
    return max((each for each in efforts if EFFORTS.index(each) <= most), key=EFFORTS.index, default=efforts[0])
