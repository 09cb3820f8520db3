"""The table: every parameter of every wire, and its handling at every target.

A row is one parameter, with its name on each wire that has it. A cell is one of *send*, *translate*, *leave out* and
*emulate*, or *refuse*. For targets that a row does not name, its kind decides: a **hint** is left out and reported; a
parameter with **meaning** is refused. A field without a row counts as having meaning. `docs/parameters.md` shows the
table, and a test sends every cell.

To add a parameter, add a row; to add a target, name it in the rows whose parameters it supports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from llm_protocol.content import Image
from llm_protocol.parameters import values
from llm_protocol.parameters.targets import TARGETS, RequestTarget
from llm_protocol.parameters.values import Translation
from llm_protocol.requests import RequestType

Kind: TypeAlias = Literal["hint", "budget", "meaning"]
Action: TypeAlias = Literal["send", "translate", "leave out", "emulate", "refuse"]

CHAT: Final = "openai_chat"
RESPONSES: Final = "openai_responses"
ANTHROPIC: Final = "anthropic"
GEMINI: Final = "gemini"
COHERE: Final = "cohere"


class Cell(msgspec.Struct, frozen=True):
    """The handling of a parameter at one target. ``how`` translates its value; ``words`` describe the change."""

    action: Action
    how: Translation | None = None
    words: str = ""


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One row. ``field`` is the field of `Parameters` or of the request; a parameter without such a field is in
    ``extra``. ``wires`` has the path of the parameter on each wire. A value in ``neutral`` has no effect: if a target
    has no such parameter, the value is left out without a report. ``example`` is a value with an effect. ``about``
    says, for the documentation, which values the row is about, if other rows have the others.
    """

    name: str
    kind: Kind
    wires: Mapping[str, str]
    cells: Mapping[str, Cell]
    field: str | None = None
    neutral: tuple[Any, ...] = ()
    example: Any = None
    about: str = ""

    def cell(self, target: RequestTarget) -> Cell:
        """Return the handling of the parameter at ``target``."""
        known = None if self.name in target.lacks else self.cells.get(target.name)
        return known or DEFAULTS[self.kind]


DEFAULTS: Final[dict[Kind, Cell]] = {
    "hint": Cell("leave out"),
    "budget": Cell("leave out"),
    "meaning": Cell("refuse"),
}

ALL: Final = " ".join(TARGETS)
_OPENAI_WIRE: Final = "openai compatible local"


_HOW: Final[dict[Translation, str]] = {
    values.no_tier: "left out; `flex` and `batch` are refused, because any other tier costs more",
    values.tier_of_openai: "Anthropic's `standard_only` and Gemini's `standard` become `default`; others are sent",
    values.tier_of_compatible: "sent",
    values.tier_of_anthropic: (
        "`default` and `standard` become `standard_only`; `priority`, `fast` and `scale` become `auto`; "
        "`flex` and `batch` are refused, other values left out"
    ),
    values.tier_of_gemini: (
        "`default` and `standard_only` become `standard`; `fast` and `scale` become `priority`; "
        "`flex` is sent, `batch` refused, and other values are left out"
    ),
    values.effort_of_budget: "the lowest effort that stands for at least as many tokens, or else `max`; `none` for 0",
}
"""The text of the generated page for each translation."""


def _row(
    name: str,
    kind: Kind,
    *,
    send: str = "",
    translate: Mapping[str, Translation] | None = None,
    emulate: Mapping[str, str] | None = None,
    leave_out: str = "",
    refuse: str = "",
    **more: Any,
) -> Parameter:
    """Make a row from lists of targets, one per action."""
    cells: dict[str, Cell] = {}
    cells |= dict.fromkeys(send.split(), Cell("send"))
    cells |= {target: Cell("translate", how, _HOW[how]) for target, how in (translate or {}).items()}
    cells |= {target: Cell("emulate", words=words) for target, words in (emulate or {}).items()}
    cells |= dict.fromkeys(leave_out.split(), Cell("leave out"))
    cells |= dict.fromkeys(refuse.split(), Cell("refuse"))
    assert cells.keys() <= TARGETS.keys(), f"{name}: unknown target"
    return Parameter(name=name, kind=kind, cells=cells, **more)


def _canonical(name: str, kind: Kind, wires: Mapping[str, str] = {}, **more: Any) -> Parameter:
    """Make a row for a field of `Parameters`; the encoder of the target knows its name."""
    return _row(name, kind, field=name, wires=wires, **more)


def _own(wire: str, kind: Kind, names: str, example: Any, *, send: str = "", **more: Any) -> tuple[Parameter, ...]:
    """Make rows for fields that only one wire's own vendors know."""
    sends = send or " ".join(name for name, target in TARGETS.items() if target.wire == wire)
    return tuple(_row(name, kind, send=sends, wires={wire: name}, example=example, **more) for name in names.split())


def _everywhere(path: str) -> dict[str, str]:
    return {CHAT: path, RESPONSES: path, ANTHROPIC: path, GEMINI: path, COHERE: path}


_SAMPLING: Final = (
    _canonical(
        "temperature", "hint", {**_everywhere("temperature"), GEMINI: "generationConfig.temperature"}, send=ALL,
        neutral=(1,), example=0.5,
    ),
    _canonical(
        "top_p", "hint", {**_everywhere("top_p"), GEMINI: "generationConfig.topP", COHERE: "p"}, send=ALL,
        neutral=(1,), example=0.5,
    ),
    _canonical(
        "top_k", "hint", {CHAT: "top_k", ANTHROPIC: "top_k", GEMINI: "generationConfig.topK", COHERE: "k"},
        send="compatible local anthropic gemini cohere", example=40,
    ),
    _canonical(
        "frequency_penalty", "hint",
        {CHAT: "frequency_penalty", GEMINI: "generationConfig.frequencyPenalty",
         COHERE: "frequency_penalty"},
        send=f"{_OPENAI_WIRE} cerebras gemini cohere", neutral=(0,), example=0.5,
    ),
    _canonical(
        "presence_penalty", "hint",
        {CHAT: "presence_penalty", GEMINI: "generationConfig.presencePenalty",
         COHERE: "presence_penalty"},
        send=f"{_OPENAI_WIRE} cerebras gemini cohere", neutral=(0,), example=0.5,
    ),
    _canonical(
        "seed", "hint", {CHAT: "seed", GEMINI: "generationConfig.seed", COHERE: "seed"},
        send=f"{_OPENAI_WIRE} cerebras gemini cohere", example=7,
    ),
    *_own(
        CHAT, "hint",
        "min_p top_a typical_p tfs_z repetition_penalty repeat_penalty repeat_last_n length_penalty mirostat "
        "mirostat_tau mirostat_eta dynatemp_range xtc_probability xtc_threshold dry_multiplier smoothing_factor",
        0.5, send="compatible local",
    ),
)  # fmt: skip
"""Parameters of sampling."""

_LENGTH: Final = (
    _canonical(
        "max_output_tokens", "budget",
        {CHAT: "max_tokens", RESPONSES: "max_output_tokens", ANTHROPIC: "max_tokens",
         GEMINI: "generationConfig.maxOutputTokens", COHERE: "max_tokens"},
        send=ALL, example=100,
    ),
    _canonical(
        "stop", "meaning",
        {CHAT: "stop", ANTHROPIC: "stop_sequences", GEMINI: "generationConfig.stopSequences",
         COHERE: "stop_sequences"},
        send=f"{_OPENAI_WIRE} cerebras anthropic gemini cohere",
        emulate={"responses": "the runtime cuts off the response at the sequence"}, neutral=((),), example=("END",),
    ),
    *_own(CHAT, "hint", "min_tokens min_completion_tokens", 10, send="compatible local cerebras"),
    *_own(CHAT, "hint", "ignore_eos include_stop_str_in_output", True, send="compatible local", neutral=(False,)),
)  # fmt: skip
"""Parameters of the response's length."""

_REASONING: Final = (
    _canonical(
        "reasoning_effort", "budget",
        {CHAT: "reasoning_effort", RESPONSES: "reasoning.effort", ANTHROPIC: "output_config.effort",
         GEMINI: "generationConfig.thinkingConfig.thinkingLevel",
         COHERE: "thinking.token_budget"},
        send=" ".join(TARGETS.keys() - {"local"}), example="high",
    ),
    _canonical(
        "reasoning_budget", "budget",
        {ANTHROPIC: "thinking.budget_tokens", GEMINI: "generationConfig.thinkingConfig.thinkingBudget",
         COHERE: "thinking.token_budget"},
        send="anthropic gemini cohere",
        translate=dict.fromkeys(["openai", "responses", "cerebras", "compatible"], values.effort_of_budget),
        example=10_000,
    ),
    _canonical(
        "reasoning_summary", "hint",
        {RESPONSES: "reasoning.summary", ANTHROPIC: "thinking.display",
         GEMINI: "generationConfig.thinkingConfig.includeThoughts"},
        send="responses anthropic gemini cohere", example="auto",
    ),
    *_own(RESPONSES, "hint", "reasoning.mode reasoning.context", "auto"),
    *_own(
        GEMINI, "hint", "generationConfig.thinkingConfig.thinkingBudget", -1, neutral=(-1,), about="a negative value",
    ),
    *_own(
        ANTHROPIC, "hint", "thinking", {"type": "adaptive", "display": "omitted"}, neutral=({"type": "adaptive"},),
        about="anything but a budget and a summary, such as `display: omitted`",
    ),
    *_own(
        CHAT, "hint",
        "reasoning include_reasoning thinking thinking_budget enable_thinking chat_template_kwargs separate_reasoning "
        "stream_reasoning reasoning_split",
        {"on": True}, send="compatible local",
    ),
    *_own(CHAT, "hint", "reasoning_format clear_thinking", "parsed", send="compatible local cerebras"),
    *_own(CHAT, "hint", "disable_reasoning", True, send="compatible local cerebras", neutral=(False,)),
)  # fmt: skip
"""Parameters of reasoning."""

_TOOLS: Final = (
    _canonical(
        "parallel_tool_calls", "hint",
        {CHAT: "parallel_tool_calls", RESPONSES: "parallel_tool_calls",
         ANTHROPIC: "tool_choice.disable_parallel_tool_use"},
        send=f"{_OPENAI_WIRE} responses cerebras anthropic", neutral=(True,), example=False,
    ),
    *_own(RESPONSES, "hint", "max_tool_calls", 3),
    *_own(GEMINI, "hint", "toolConfig.retrievalConfig toolConfig.includeServerSideToolInvocations", {"a": 1}),
    _row(
        "allowedFunctionNames", "meaning", send="gemini",
        emulate=dict.fromkeys(
            (name for name in TARGETS if name != "gemini"), "the other tools are not offered"
        ),
        wires={GEMINI: "toolConfig.functionCallingConfig.allowedFunctionNames"}, example=["weather"],
    ),
    *_own(CHAT, "hint", "web_search_options", {}, send=_OPENAI_WIRE),
    *_own(ANTHROPIC, "meaning", "mcp_servers", [{"type": "url", "url": "https://example.org"}]),
    # Tool choices in a form that only the wire itself has. Those of tools that can be mapped are converted before.
    *_own(
        CHAT, "meaning", "tool_choice", {"type": "allowed_tools"}, send=_OPENAI_WIRE,
        about="forms that only Chat Completions has, such as `allowed_tools`",
    ),
    *_own(
        RESPONSES, "meaning", "tool_choice", {"type": "file_search"},
        about="forms that only the Responses API has, such as `file_search`",
    ),
)  # fmt: skip
"""Parameters about tools, without the tools themselves."""

_CONCURRENT: Final = "`n` concurrent requests, which share the request's budget"
_CHOICES: Final = dict.fromkeys((name for name in TARGETS if name != "openai"), _CONCURRENT) | {
    "compatible": f"{_CONCURRENT}; sent to Mistral, and to models with the capability `choices`"
}

_ANSWER: Final = (
    _row(
        "n", "meaning", send="openai", emulate=_CHOICES,
        wires={CHAT: "n"}, neutral=(1,), example=2,
    ),
    *_own(CHAT, "meaning", "best_of", 2, send="", refuse=ALL, neutral=(1,)),
    *_own(CHAT, "meaning", "echo", True, refuse=ALL, neutral=(False,)),
    _row(
        "logprobs", "meaning", send=f"{_OPENAI_WIRE} cerebras", wires={CHAT: "logprobs"},
        neutral=(False, 0), example=True,
    ),
    _row(
        "top_logprobs", "meaning", send=f"{_OPENAI_WIRE} cerebras",
        wires={CHAT: "top_logprobs"}, neutral=(0,), example=2,
    ),
    _row(
        "logit_bias", "meaning", send=f"{_OPENAI_WIRE} cerebras", wires={CHAT: "logit_bias"},
        neutral=({},), example={"50256": -100},
    ),
    *_own(RESPONSES, "meaning", "top_logprobs", 2, neutral=(0,)),
    *_own(COHERE, "meaning", "logprobs", True, neutral=(False,)),
    *_own(GEMINI, "meaning", "generationConfig.responseLogprobs", True, neutral=(False,)),
    *_own(GEMINI, "meaning", "generationConfig.logprobs", 3, neutral=(0,)),
    *_own(CHAT, "meaning", "modalities", ["text", "audio"], send=_OPENAI_WIRE, neutral=(["text"],)),
    *_own(CHAT, "meaning", "audio", {"voice": "alloy", "format": "wav"}, send=_OPENAI_WIRE),
    *_own(GEMINI, "meaning", "generationConfig.responseModalities", ["AUDIO"], neutral=(["TEXT"], ["text"])),
    *_own(GEMINI, "meaning", "generationConfig.speechConfig generationConfig.imageConfig", {"a": 1}),
    *_own(
        GEMINI, "meaning", "generationConfig.responseMimeType", "text/x.enum", neutral=("text/plain",),
        about="types other than JSON and plain text, such as `text/x.enum`",
    ),
    *_own(
        GEMINI, "meaning", "generationConfig.responseSchema", {"type": "STRING", "enum": ["a"]},
        about="without `responseMimeType: application/json`",
    ),
    *_own(
        CHAT, "meaning", "response_format", {"type": "grammar"}, send=_OPENAI_WIRE,
        about="types other than `text`, `json_object` and `json_schema`",
    ),
    *_own(
        CHAT, "meaning",
        "guided_json guided_regex guided_choice guided_grammar guided_decoding_backend structured_outputs grammar "
        "json_schema regex ebnf logits_processors",
        {"a": 1}, send="compatible local",
    ),
    _row(
        "verbosity", "hint", send=f"{_OPENAI_WIRE} responses",
        wires={CHAT: "verbosity", RESPONSES: "text.verbosity"}, example="low",
    ),
    *_own(RESPONSES, "hint", "image", {"quality": "low"}),
    *_own(CHAT, "meaning", "moderation", {"type": "auto"}, send=_OPENAI_WIRE),
    *_own(RESPONSES, "meaning", "moderation", {"type": "auto"}),
)  # fmt: skip
"""Parameters of the response's content, without its format."""

_PROMPT: Final = (
    *_own(COHERE, "meaning", "documents", [{"data": "text"}], neutral=([],)),
    *_own(CHAT, "meaning", "documents", [{"text": "text"}], send="compatible local", neutral=([],)),
    *_own(COHERE, "hint", "citation_options", {"mode": "FAST"}),
    *_own(COHERE, "meaning", "raw_prompting", True, neutral=(False,)),
    *_own(GEMINI, "meaning", "cachedContent", "cachedContents/1"),
    *_own(GEMINI, "hint", "generationConfig.mediaResolution", "MEDIA_RESOLUTION_LOW"),
    *_own(ANTHROPIC, "meaning", "container", "container_1"),
    *_own(ANTHROPIC, "hint", "context_management", {"edits": []}),
    *_own(RESPONSES, "hint", "context_management", [{"type": "compaction"}]),
    *_own(RESPONSES, "hint", "truncation", "auto", neutral=("disabled",)),
    *_own(CHAT, "hint", "prediction", {"type": "content", "content": "x"}, send=f"{_OPENAI_WIRE} cerebras"),
    *_own(CHAT, "hint", "transforms truncate_prompt_tokens", ["middle-out"], send="compatible local"),
    *_own(
        CHAT, "hint", "add_generation_prompt continue_final_message add_special_tokens skip_special_tokens",
        True, send="compatible local",
    ),
    *_own(CHAT, "meaning", "model_parameters", {"k": 1}, send="compatible local cerebras", neutral=({},)),
    *_own(CHAT, "meaning", "plugins", [{"id": "web"}], send="compatible local"),
)  # fmt: skip
"""Input of the model other than the conversation."""

_SERVICE: Final = (
    _canonical(
        "user", "hint",
        {CHAT: "user", RESPONSES: "safety_identifier", ANTHROPIC: "metadata.user_id"},
        send=f"{_OPENAI_WIRE} responses cerebras anthropic", example="user-1",
    ),
    _row(
        "store", "hint", send=_OPENAI_WIRE, wires={CHAT: "store"}, neutral=(False,), example=True,
    ),
    _row("metadata", "hint", send=_OPENAI_WIRE, wires={CHAT: "metadata"}, neutral=({},), example={"a": "b"}),
    *_own(ANTHROPIC, "hint", "metadata", {"team": "a"}),
    *_own(RESPONSES, "hint", "user", "user-1", about="beside `safety_identifier`"),
    _row(
        "prompt_cache_key", "hint", send=f"{_OPENAI_WIRE} responses cerebras",
        wires={CHAT: "prompt_cache_key", RESPONSES: "prompt_cache_key"}, example="key-1",
    ),
    _row(
        "prompt_cache_retention", "hint", send=f"{_OPENAI_WIRE} responses",
        wires={CHAT: "prompt_cache_retention", RESPONSES: "prompt_cache_retention"}, example="24h",
    ),
    _row(
        "prompt_cache_options", "hint", send=f"{_OPENAI_WIRE} responses",
        wires={CHAT: "prompt_cache_options", RESPONSES: "prompt_cache_options"}, example={"ttl": "24h"},
    ),
    *_own(ANTHROPIC, "hint", "cache_control", {"type": "ephemeral"}),
    _row(
        "service_tier", "meaning",
        wires={CHAT: "service_tier", RESPONSES: "service_tier", ANTHROPIC: "service_tier",
               GEMINI: "serviceTier"},
        translate={"anthropic": values.tier_of_anthropic, "gemini": values.tier_of_gemini,
                   "cohere": values.no_tier,
                   **dict.fromkeys(["openai", "responses", "cerebras"], values.tier_of_openai),
                   **dict.fromkeys(["compatible", "local"], values.tier_of_compatible)},
        neutral=("auto",), example="priority",
    ),
    *_own(ANTHROPIC, "hint", "speed", "fast", neutral=("standard",)),
    *_own(ANTHROPIC, "meaning", "inference_geo", "us", neutral=("global",)),
    *_own(ANTHROPIC, "hint", "diagnostics betas user_profile_id output_config.task_budget", {"a": 1}),
    *_own(GEMINI, "hint", "store labels", {"a": "b"}, neutral=(False,)),
    *_own(GEMINI, "hint", "safetySettings", [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]),
    *_own(GEMINI, "hint", "generationConfig.enableEnhancedCivicAnswers", True),
    *_own(COHERE, "hint", "safety_mode", "STRICT"),
    *_own(COHERE, "hint", "priority", 1),
    *_own(
        RESPONSES, "hint",
        "include access_programs background_options client_metadata stream_options prompt_cache_breakpoint",
        ["reasoning.encrypted_content"],
    ),
    *_own(
        CHAT, "hint",
        "provider models route usage session_id trace keep_alive options cache_prompt id_slot timings_per_token "
        "request_id cache_salt priority safe_prompt prompt_mode reasoning_content_in_history",
        {"a": 1}, send="compatible local",
    ),
)  # fmt: skip
"""How the vendor processes and stores the request."""

_FORM: Final = (
    _row(
        "response_format: json_object", "meaning", field="response_format",
         send=" ".join(TARGETS.keys() - {"anthropic"}),
        emulate={"anthropic": "the prompt asks for JSON; code fences are removed, and the response is checked"},
        wires={CHAT: "response_format", RESPONSES: "text.format", GEMINI: "generationConfig.responseMimeType",
               COHERE: "response_format"},
    ),
    _row(
        "response_format: json_schema", "meaning", field="response_format", send=ALL,
        wires={CHAT: "response_format", RESPONSES: "text.format", ANTHROPIC: "output_config.format",
               GEMINI: "generationConfig.responseJsonSchema", COHERE: "response_format"},
    ),
    _row(
        "tool_choice: required", "meaning", field="tool_choice", send=ALL,
        wires={CHAT: "tool_choice", RESPONSES: "tool_choice", ANTHROPIC: "tool_choice",
               GEMINI: "toolConfig.functionCallingConfig", COHERE: "tool_choice"},
    ),
    _row(
        "tool_choice: one tool", "meaning", field="tool_choice", send=" ".join(TARGETS.keys() - {"cohere"}),
        emulate={"cohere": "only that tool is offered, and a call is required"},
        wires={CHAT: "tool_choice", RESPONSES: "tool_choice", ANTHROPIC: "tool_choice",
               GEMINI: "toolConfig.functionCallingConfig"},
    ),
    _row(
        "tools: custom", "meaning", field="tools", send="openai responses",
        emulate=dict.fromkeys(
            TARGETS.keys() - {"openai", "responses"},
            "the model gets a function with one text argument; its calls are returned as custom calls",
        ),
        wires={CHAT: "tools", RESPONSES: "tools"},
    ),
    _row(
        "tools: namespaces", "meaning", field="tools", send="responses",
        emulate=dict.fromkeys(
            TARGETS.keys() - {"responses"}, "the model gets plain functions; calls are returned with namespace and name"
        ),
        wires={RESPONSES: "tools"},
    ),
    _row(
        "tools: web search, code execution", "hint", field="tools", send="responses anthropic gemini",
        wires={RESPONSES: "tools", ANTHROPIC: "tools", GEMINI: "tools"},
    ),
    _row(
        "tools: other hosted ones", "hint", field="tools",
        wires={CHAT: "tools", RESPONSES: "tools", ANTHROPIC: "tools", GEMINI: "tools", COHERE: "tools"},
    ),
)  # fmt: skip
"""The response format and the tools. What is done with them depends on their values; see
`llm_protocol.parameters.forms`.
"""

TOKEN_IDS: Final = _row(
    "input: token ids", "meaning", field="inputs", send="openai responses compatible", wires={CHAT: "input"},
    example=((1, 2),),
)  # fmt: skip

_VECTORS: Final = (
    _row(
        "dimensions", "meaning", field="dimensions", send="openai responses compatible gemini cohere",
        wires={CHAT: "dimensions", GEMINI: "outputDimensionality", COHERE: "output_dimension"}, example=256,
    ),
    _row(
        "input_type", "hint", field="input_type", send="gemini cohere",
        wires={GEMINI: "taskType", COHERE: "input_type"}, example="search_query",
    ),
)  # fmt: skip
"""Parameters of embedding requests."""

_PICTURES: Final = (
    _row("n", "meaning", field="n", send="openai responses compatible", wires={CHAT: "n"}, neutral=(1,), example=2),
    _row(
        "size", "meaning", field="size", send="openai responses compatible gemini",
        wires={CHAT: "size", GEMINI: "generationConfig.imageConfig"}, neutral=("auto",), example="1024x1024",
    ),
    _row(
        "quality", "hint", field="quality", send="openai responses compatible", wires={CHAT: "quality"},
        neutral=("auto",), example="low",
    ),
    _row(
        "output_format", "meaning", field="output_format", send="openai responses compatible",
        wires={CHAT: "output_format"}, neutral=("auto",), example="webp",
    ),
    _row(
        "background", "meaning", field="background", send="openai responses compatible", wires={CHAT: "background"},
        neutral=("auto", "opaque"), example="transparent",
    ),
    _row(
        "images", "meaning", field="images", send="openai responses compatible gemini", wires={CHAT: "image"},
        neutral=((),), example=(Image(data=b"\x89PNG", media_type="image/png"),),
    ),
    _row(
        "mask", "meaning", field="mask", send="openai responses compatible", wires={CHAT: "mask"},
        example=Image(data=b"\x89PNG", media_type="image/png"),
    ),
)  # fmt: skip
"""Parameters of image requests."""

SECTIONS: Final[dict[str, tuple[Parameter, ...]]] = {
    "Sampling": _SAMPLING,
    "Length": _LENGTH,
    "Reasoning": _REASONING,
    "Format and tools": _FORM + _TOOLS,
    "Response": _ANSWER,
    "Prompt": _PROMPT,
    "Service": _SERVICE,
    "Embeddings": (*_VECTORS, TOKEN_IDS),
    "Images": _PICTURES,
}

BY_TYPE: Final = {RequestType.EMBEDDING: _VECTORS, RequestType.IMAGE_GENERATION: _PICTURES}
"""The rows of fields that only this request type has, by the name of the field."""

ROWS: Final = tuple(row for section in SECTIONS.values() for row in section)

LACKABLE: Final = frozenset(row.name for row in ROWS if row not in _FORM)
"""The names that `RequestTarget.lacks` may contain. Formats and tools have fields of their own in a target."""
