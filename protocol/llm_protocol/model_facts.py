"""The columns of the table in `llm_protocol.model_rules`: facts about a model."""

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
    """Some facts about a model; ``None`` means unknown. The fields have the meaning of those of `ModelRule`.

    Raises `ValueError` for efforts that are not in order, from least to most.
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
    """All facts about a model. The defaults are those of a model that accepts everything."""

    wire: Wire = "any"
    """The API of OpenAI that the model needs. ``any``: either; ``chat``: Chat Completions; ``responses``: Responses;
    ``responses_if_tools``: Responses for requests with tools of any kind; ``responses_if_tools_and_reasoning``:
    Responses for requests with function tools, if the model reasons. If only Chat Completions is available,
    ``responses_if_tools`` means that the model accepts no tools there, and ``responses_if_tools_and_reasoning`` that it
    does not reason there if a request has tools.
    """
    thinking: tuple[Thinking, ...] | None = None
    """How reasoning is requested. ``effort``: with an effort; ``adaptive``: the model decides; ``budget``: with a
    budget of tokens. Empty: the model does not reason. ``None``: unknown.
    """
    efforts: tuple[Effort, ...] = ()
    """The efforts that the model accepts, from least to most; empty: unknown."""
    default_effort: Effort | None = None
    """The effort that the model uses if the request sets none."""
    thinking_off: ThinkingOff = "effort"
    """How reasoning is turned off. ``effort``: with the effort ``none``, if the model accepts it; ``disabled``,
    ``between_tools``: with Anthropic's ``thinking`` of that ``type``; ``never``: not at all.
    """
    thinking_off_up_to: Effort | None = None
    """The highest effort that the model accepts while reasoning is off; a higher one is lowered to it. ``None``:
    any.
    """
    budgets: Mapping[str, int | None] = {}
    """The token budget that is sent for each effort, to models that accept budgets but no efforts. An effort without a
    budget is not limited; over Anthropic's wire it requests no reasoning. Empty: budgets that the runtime chooses.
    """
    tools: bool | None = None
    """Whether the model calls function tools; ``None``: unknown."""
    parallel_calls: bool | None = None
    """Whether the model calls several tools in one response; ``None``: unknown."""
    forced_tools: bool = True
    """Whether a request can require a tool call."""
    sampling: Sampling = "always"
    """When the model accepts ``temperature``, ``top_p`` and ``top_k``."""
    stop: bool = True
    """Whether the model accepts stop sequences."""
    prefill: bool = False
    """Whether the model can continue a response whose beginning is the last message of the conversation."""
    mid_system: bool = True
    """Whether system messages may occur between other messages."""
    replay: Replay = "always"
    """The models to which earlier reasoning of this model may be sent. ``always``: every model of the vendor;
    ``same_model``: only this model; ``never``: none.
    """
    signed_calls: bool = False
    """Whether a tool call in the history must have the signature that came with it (Gemini)."""
    vision: bool | None = None
    """Whether the model accepts images; ``None``: unknown."""
    documents: bool | None = None
    """Whether the model accepts documents (PDF); ``None``: unknown."""
    audio: bool | None = None
    """Whether the model accepts audio; ``None``: unknown."""
    draws: bool = False
    """Whether the model's chat responses can contain images."""
    choices: bool | None = None
    """Whether one chat response can have several choices (``n``). ``None``: the usual behaviour of its vendor."""
    base64_vectors: bool = True
    """Whether the model's embeddings are available in base64, which takes a third of the bytes of a JSON list. This
    matters only if the vendor supports base64.
    """
    context_window: int | None = None
    """The context window: the tokens of prompt and response together."""
    max_output_tokens: int | None = None
    """The most tokens of a response."""

    @property
    def reasons_with_tools(self) -> bool:
        """Whether function tools and reasoning can be combined over Chat Completions."""
        return self.wire in ("any", "chat")

    def reasons(self, effort: str | None) -> bool:
        """Return whether the model reasons if the request sets ``effort``; ``None``: the request sets none."""
        return (effort or self.default_effort) not in (None, "none")

    @property
    def can_stop_thinking(self) -> bool:
        """Whether the model's reasoning can be disabled, as far as is known."""
        if self.thinking_off == "effort":
            return not self.efforts or "none" in self.efforts
        return self.thinking_off != "never"


Row: TypeAlias = tuple[str, ModelRule]
"""A pattern for the beginning of a model's name in its short form (see `short_name`), and the facts about such
models.
"""


def nearest_effort(effort: str, efforts: Sequence[str]) -> str:
    """Return the greatest of ``efforts`` that is not above ``effort``; if all are above it, the least. Return
    ``effort`` itself if ``efforts`` is empty or ``effort`` is not in `EFFORTS`.
    """
    if not efforts or effort not in EFFORTS:
        return effort
    most = EFFORTS.index(effort)
    return max((each for each in efforts if EFFORTS.index(each) <= most), key=EFFORTS.index, default=efforts[0])
