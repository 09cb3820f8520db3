"""The table: every parameter of every wire, and its handling at every target.

A row is one parameter, with its name on each wire that has it. A cell is one of *send*, *translate*, *leave out* and
*emulate*, or *refuse*. For targets that a row does not name, its kind decides: a **hint** is left out and reported; a
parameter with **meaning** is refused. A field without a row counts as having meaning. `docs/parameters.md` shows the
table, and a test sends every cell.

To add a parameter, add a row; to add a target, name it in the rows whose parameters it supports.
"""

from __future__ import annotations

from typing import Any, Final

from llm_protocol.content import Image
from llm_protocol.parameters.rows import (
    ALL,
    ANTHROPIC,
    CHAT,
    CHAT_WIRE,
    COHERE,
    GEMINI,
    OPENAI_WIRE,
    RESPONSES,
    TIERS,
    Kind,
    Parameter,
    canonical_row,
    effort_of_budget,
    everywhere,
    own_rows,
    row,
)
from llm_protocol.parameters.targets import TARGETS
from llm_protocol.requests import RequestType

_SAMPLING: Final = (
    canonical_row(
        "temperature", "hint", {**everywhere("temperature"), GEMINI: "generationConfig.temperature"}, send=ALL,
        neutral=(1,), example=0.5,
    ),
    canonical_row(
        "top_p", "hint", {**everywhere("top_p"), GEMINI: "generationConfig.topP", COHERE: "p"}, send=ALL,
        neutral=(1,), example=0.5,
    ),
    canonical_row(
        "top_k", "hint", {CHAT: "top_k", ANTHROPIC: "top_k", GEMINI: "generationConfig.topK", COHERE: "k"},
        send="compatible local anthropic gemini cohere", example=40,
    ),
    canonical_row(
        "frequency_penalty", "hint",
        {CHAT: "frequency_penalty", GEMINI: "generationConfig.frequencyPenalty",
         COHERE: "frequency_penalty"},
        send=f"{OPENAI_WIRE} cerebras gemini cohere", neutral=(0,), example=0.5,
    ),
    canonical_row(
        "presence_penalty", "hint",
        {CHAT: "presence_penalty", GEMINI: "generationConfig.presencePenalty",
         COHERE: "presence_penalty"},
        send=f"{OPENAI_WIRE} cerebras gemini cohere", neutral=(0,), example=0.5,
    ),
    canonical_row(
        "seed", "hint", {CHAT: "seed", GEMINI: "generationConfig.seed", COHERE: "seed"},
        send=f"{OPENAI_WIRE} cerebras gemini cohere", example=7,
    ),
    *own_rows(
        CHAT, "hint",
        "min_p top_a typical_p tfs_z repetition_penalty repeat_penalty repeat_last_n length_penalty mirostat "
        "mirostat_tau mirostat_eta dynatemp_range xtc_probability xtc_threshold dry_multiplier smoothing_factor",
        0.5, send="compatible local",
    ),
)  # fmt: skip
"""Parameters of sampling."""

_LENGTH: Final = (
    canonical_row(
        "max_output_tokens", "budget",
        {CHAT: "max_tokens", RESPONSES: "max_output_tokens", ANTHROPIC: "max_tokens",
         GEMINI: "generationConfig.maxOutputTokens", COHERE: "max_tokens"},
        send=ALL, example=100,
    ),
    canonical_row(
        "stop", "meaning",
        {CHAT: "stop", ANTHROPIC: "stop_sequences", GEMINI: "generationConfig.stopSequences",
         COHERE: "stop_sequences"},
        send=f"{OPENAI_WIRE} cerebras anthropic gemini cohere",
        emulate={"responses": "the runtime cuts off the response at the sequence"}, neutral=((),), example=("END",),
    ),
    *own_rows(CHAT, "hint", "min_tokens min_completion_tokens", 10, send="compatible local cerebras"),
    *own_rows(CHAT, "hint", "ignore_eos include_stop_str_in_output", True, send="compatible local", neutral=(False,)),
)  # fmt: skip
"""Parameters of the response's length."""

_REASONING: Final = (
    canonical_row(
        "reasoning_effort", "budget",
        {CHAT: "reasoning_effort", RESPONSES: "reasoning.effort", ANTHROPIC: "output_config.effort",
         GEMINI: "generationConfig.thinkingConfig.thinkingLevel",
         COHERE: "thinking.token_budget"},
        send=" ".join(TARGETS.keys() - {"local"}), example="high",
    ),
    canonical_row(
        "reasoning_budget", "budget",
        {ANTHROPIC: "thinking.budget_tokens", GEMINI: "generationConfig.thinkingConfig.thinkingBudget",
         COHERE: "thinking.token_budget"},
        send="anthropic gemini cohere",
        translate=dict.fromkeys(["openai", "responses", "cerebras", "compatible"], effort_of_budget),
        example=10_000,
    ),
    canonical_row(
        "reasoning_summary", "hint",
        {RESPONSES: "reasoning.summary", ANTHROPIC: "thinking.display",
         GEMINI: "generationConfig.thinkingConfig.includeThoughts"},
        send="responses anthropic gemini cohere", example="auto",
    ),
    *own_rows(RESPONSES, "hint", "reasoning.mode reasoning.context", "auto"),
    *own_rows(
        GEMINI, "hint", "generationConfig.thinkingConfig.thinkingBudget", -1, neutral=(-1,), about="a negative value",
    ),
    *own_rows(
        ANTHROPIC, "hint", "thinking", {"type": "adaptive", "display": "omitted"}, neutral=({"type": "adaptive"},),
        about="anything but a budget and a summary, such as `display: omitted`",
    ),
    *own_rows(
        CHAT, "hint",
        "reasoning include_reasoning thinking thinking_budget enable_thinking chat_template_kwargs separate_reasoning "
        "stream_reasoning reasoning_split",
        {"on": True}, send="compatible local",
    ),
    *own_rows(CHAT, "hint", "reasoning_format clear_thinking", "parsed", send="compatible local cerebras"),
    *own_rows(CHAT, "hint", "disable_reasoning", True, send="compatible local cerebras", neutral=(False,)),
)  # fmt: skip
"""Parameters of reasoning."""

_TOOLS: Final = (
    canonical_row(
        "parallel_tool_calls", "hint",
        {CHAT: "parallel_tool_calls", RESPONSES: "parallel_tool_calls",
         ANTHROPIC: "tool_choice.disable_parallel_tool_use"},
        send=f"{OPENAI_WIRE} responses cerebras anthropic", neutral=(True,), example=False,
    ),
    *own_rows(RESPONSES, "hint", "max_tool_calls", 3),
    *own_rows(GEMINI, "hint", "toolConfig.retrievalConfig toolConfig.includeServerSideToolInvocations", {"a": 1}),
    row(
        "allowedFunctionNames", "meaning", send="gemini",
        emulate=dict.fromkeys((name for name in TARGETS if name != "gemini"), "the other tools are not offered"),
        wires={GEMINI: "toolConfig.functionCallingConfig.allowedFunctionNames"}, example=["weather"],
    ),
    *own_rows(CHAT, "hint", "web_search_options", {}, send=OPENAI_WIRE),
    *own_rows(ANTHROPIC, "meaning", "mcp_servers", [{"type": "url", "url": "https://example.org"}]),
    # Tool choices in a form that only the wire itself has. Those of tools that can be mapped are converted before.
    *own_rows(
        CHAT, "meaning", "tool_choice", {"type": "allowed_tools"}, send=OPENAI_WIRE,
        about="forms that only Chat Completions has, such as `allowed_tools`",
    ),
    *own_rows(
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
    row("n", "meaning", send="openai", emulate=_CHOICES, wires={CHAT: "n"}, neutral=(1,), example=2),
    *own_rows(CHAT, "meaning", "best_of", 2, send="", refuse=ALL, neutral=(1,)),
    *own_rows(CHAT, "meaning", "echo", True, refuse=ALL, neutral=(False,)),
    row("logprobs", "meaning", send=CHAT_WIRE, wires={CHAT: "logprobs"}, neutral=(False, 0), example=True),
    row("top_logprobs", "meaning", send=CHAT_WIRE, wires={CHAT: "top_logprobs"}, neutral=(0,), example=2),
    row(
        "logit_bias", "meaning", send=CHAT_WIRE, wires={CHAT: "logit_bias"},
        neutral=({},), example={"50256": -100},
    ),
    *own_rows(RESPONSES, "meaning", "top_logprobs", 2, neutral=(0,)),
    *own_rows(COHERE, "meaning", "logprobs", True, neutral=(False,)),
    *own_rows(GEMINI, "meaning", "generationConfig.responseLogprobs", True, neutral=(False,)),
    *own_rows(GEMINI, "meaning", "generationConfig.logprobs", 3, neutral=(0,)),
    *own_rows(CHAT, "meaning", "modalities", ["text", "audio"], send=OPENAI_WIRE, neutral=(["text"],)),
    *own_rows(CHAT, "meaning", "audio", {"voice": "alloy", "format": "wav"}, send=OPENAI_WIRE),
    *own_rows(GEMINI, "meaning", "generationConfig.responseModalities", ["AUDIO"], neutral=(["TEXT"], ["text"])),
    *own_rows(GEMINI, "meaning", "generationConfig.speechConfig generationConfig.imageConfig", {"a": 1}),
    *own_rows(
        GEMINI, "meaning", "generationConfig.responseMimeType", "text/x.enum", neutral=("text/plain",),
        about="types other than JSON and plain text, such as `text/x.enum`",
    ),
    *own_rows(
        GEMINI, "meaning", "generationConfig.responseSchema", {"type": "STRING", "enum": ["a"]},
        about="without `responseMimeType: application/json`",
    ),
    *own_rows(
        CHAT, "meaning", "response_format", {"type": "grammar"}, send=OPENAI_WIRE,
        about="types other than `text`, `json_object` and `json_schema`",
    ),
    *own_rows(
        CHAT, "meaning",
        "guided_json guided_regex guided_choice guided_grammar guided_decoding_backend structured_outputs grammar "
        "json_schema regex ebnf logits_processors",
        {"a": 1}, send="compatible local",
    ),
    row(
        "verbosity", "hint", send=f"{OPENAI_WIRE} responses",
        wires={CHAT: "verbosity", RESPONSES: "text.verbosity"}, example="low",
    ),
    *own_rows(RESPONSES, "hint", "image", {"quality": "low"}),
    *own_rows(CHAT, "meaning", "moderation", {"type": "auto"}, send=OPENAI_WIRE),
    *own_rows(RESPONSES, "meaning", "moderation", {"type": "auto"}),
)  # fmt: skip
"""Parameters of the response's content, without its format."""

_PROMPT: Final = (
    *own_rows(COHERE, "meaning", "documents", [{"data": "text"}], neutral=([],)),
    *own_rows(CHAT, "meaning", "documents", [{"text": "text"}], send="compatible local", neutral=([],)),
    *own_rows(COHERE, "hint", "citation_options", {"mode": "FAST"}),
    *own_rows(COHERE, "meaning", "raw_prompting", True, neutral=(False,)),
    *own_rows(GEMINI, "meaning", "cachedContent", "cachedContents/1"),
    *own_rows(GEMINI, "hint", "generationConfig.mediaResolution", "MEDIA_RESOLUTION_LOW"),
    *own_rows(ANTHROPIC, "meaning", "container", "container_1"),
    *own_rows(ANTHROPIC, "hint", "context_management", {"edits": []}),
    *own_rows(RESPONSES, "hint", "context_management", [{"type": "compaction"}]),
    *own_rows(RESPONSES, "hint", "truncation", "auto", neutral=("disabled",)),
    *own_rows(CHAT, "hint", "prediction", {"type": "content", "content": "x"}, send=CHAT_WIRE),
    *own_rows(CHAT, "hint", "transforms truncate_prompt_tokens", ["middle-out"], send="compatible local"),
    *own_rows(
        CHAT, "hint", "add_generation_prompt continue_final_message add_special_tokens skip_special_tokens",
        True, send="compatible local",
    ),
    *own_rows(CHAT, "meaning", "model_parameters", {"k": 1}, send="compatible local cerebras", neutral=({},)),
    *own_rows(CHAT, "meaning", "plugins", [{"id": "web"}], send="compatible local"),
)  # fmt: skip
"""Input of the model other than the conversation."""

_SERVICE: Final = (
    canonical_row(
        "user", "hint",
        {CHAT: "user", RESPONSES: "safety_identifier", ANTHROPIC: "metadata.user_id"},
        send=f"{OPENAI_WIRE} responses cerebras anthropic", example="user-1",
    ),
    row("store", "hint", send=OPENAI_WIRE, wires={CHAT: "store"}, neutral=(False,), example=True),
    row("metadata", "hint", send=OPENAI_WIRE, wires={CHAT: "metadata"}, neutral=({},), example={"a": "b"}),
    *own_rows(ANTHROPIC, "hint", "metadata", {"team": "a"}),
    *own_rows(RESPONSES, "hint", "user", "user-1", about="if the request also has `safety_identifier`"),
    row(
        "prompt_cache_key", "hint", send=f"{OPENAI_WIRE} responses cerebras",
        wires={CHAT: "prompt_cache_key", RESPONSES: "prompt_cache_key"}, example="key-1",
    ),
    row(
        "prompt_cache_retention", "hint", send=f"{OPENAI_WIRE} responses",
        wires={CHAT: "prompt_cache_retention", RESPONSES: "prompt_cache_retention"}, example="24h",
    ),
    row(
        "prompt_cache_options", "hint", send=f"{OPENAI_WIRE} responses",
        wires={CHAT: "prompt_cache_options", RESPONSES: "prompt_cache_options"}, example={"ttl": "24h"},
    ),
    *own_rows(ANTHROPIC, "hint", "cache_control", {"type": "ephemeral"}),
    row(
        "service_tier", "meaning",
        wires={CHAT: "service_tier", RESPONSES: "service_tier", ANTHROPIC: "service_tier", GEMINI: "serviceTier"},
        translate=TIERS, neutral=("auto",), example="priority",
    ),
    *own_rows(ANTHROPIC, "hint", "speed", "fast", neutral=("standard",)),
    *own_rows(ANTHROPIC, "meaning", "inference_geo", "us", neutral=("global",)),
    *own_rows(ANTHROPIC, "hint", "diagnostics betas user_profile_id output_config.task_budget", {"a": 1}),
    *own_rows(GEMINI, "hint", "store labels", {"a": "b"}, neutral=(False,)),
    *own_rows(GEMINI, "hint", "safetySettings", [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]),
    *own_rows(GEMINI, "hint", "generationConfig.enableEnhancedCivicAnswers", True),
    *own_rows(COHERE, "hint", "safety_mode", "STRICT"),
    *own_rows(COHERE, "hint", "priority", 1),
    *own_rows(
        RESPONSES, "hint",
        "include access_programs background_options client_metadata stream_options prompt_cache_breakpoint",
        ["reasoning.encrypted_content"],
    ),
    *own_rows(
        CHAT, "hint",
        "provider models route usage session_id trace keep_alive options cache_prompt id_slot timings_per_token "
        "request_id cache_salt priority safe_prompt prompt_mode reasoning_content_in_history",
        {"a": 1}, send="compatible local",
    ),
)  # fmt: skip
"""How the vendor processes and stores the request."""

_FORM: Final = (
    row(
        "response_format: json_object", "meaning", field="response_format",
         send=" ".join(TARGETS.keys() - {"anthropic"}),
        emulate={"anthropic": "the prompt asks for JSON; code fences are removed, and the response is checked"},
        wires={CHAT: "response_format", RESPONSES: "text.format", GEMINI: "generationConfig.responseMimeType",
               COHERE: "response_format"},
    ),
    row(
        "response_format: json_schema", "meaning", field="response_format", send=ALL,
        wires={CHAT: "response_format", RESPONSES: "text.format", ANTHROPIC: "output_config.format",
               GEMINI: "generationConfig.responseJsonSchema", COHERE: "response_format"},
    ),
    row(
        "tool_choice: required", "meaning", field="tool_choice", send=ALL,
        wires={CHAT: "tool_choice", RESPONSES: "tool_choice", ANTHROPIC: "tool_choice",
               GEMINI: "toolConfig.functionCallingConfig", COHERE: "tool_choice"},
    ),
    row(
        "tool_choice: one tool", "meaning", field="tool_choice", send=" ".join(TARGETS.keys() - {"cohere"}),
        emulate={"cohere": "only that tool is offered, and a call is required"},
        wires={CHAT: "tool_choice", RESPONSES: "tool_choice", ANTHROPIC: "tool_choice",
               GEMINI: "toolConfig.functionCallingConfig"},
    ),
    row(
        "tools: custom", "meaning", field="tools", send="openai responses",
        emulate=dict.fromkeys(
            TARGETS.keys() - {"openai", "responses"},
            "the model gets a function with one text argument; its calls are returned as custom calls",
        ),
        wires={CHAT: "tools", RESPONSES: "tools"},
    ),
    row(
        "tools: namespaces", "meaning", field="tools", send="responses",
        emulate=dict.fromkeys(
            TARGETS.keys() - {"responses"}, "the model gets plain functions; calls are returned with namespace and name"
        ),
        wires={RESPONSES: "tools"},
    ),
    row(
        "tools: web search, code execution", "hint", field="tools", send="responses anthropic gemini",
        wires={RESPONSES: "tools", ANTHROPIC: "tools", GEMINI: "tools"},
    ),
    row(
        "tools: other hosted ones", "hint", field="tools",
        wires={CHAT: "tools", RESPONSES: "tools", ANTHROPIC: "tools", GEMINI: "tools", COHERE: "tools"},
    ),
)  # fmt: skip
"""The response format and the tools. What is done with them depends on their values; see
`llm_protocol.parameters.forms`.
"""

TOKEN_IDS: Final = row(
    "input: token ids", "meaning", field="inputs", send="openai responses compatible", wires={CHAT: "input"},
    example=((1, 2),),
)  # fmt: skip

_VECTORS: Final = (
    row(
        "dimensions", "meaning", field="dimensions", send="openai responses compatible gemini cohere",
        wires={CHAT: "dimensions", GEMINI: "outputDimensionality", COHERE: "output_dimension"}, example=256,
    ),
    row(
        "input_type", "hint", field="input_type", send="gemini cohere",
        wires={GEMINI: "taskType", COHERE: "input_type"}, example="search_query",
    ),
)  # fmt: skip
"""Parameters of embedding requests."""


def _picture(name: str, kind: Kind, **more: Any) -> Parameter:
    """Make a row for a field of image requests, which has the same name on the wire."""
    return row(name, kind, field=name, send="openai responses compatible", wires={CHAT: name}, **more)


_PICTURES: Final = (
    _picture("n", "meaning", neutral=(1,), example=2),
    row(
        "size", "meaning", field="size", send="openai responses compatible gemini",
        wires={CHAT: "size", GEMINI: "generationConfig.imageConfig"}, neutral=("auto",), example="1024x1024",
    ),
    _picture("quality", "hint", neutral=("auto",), example="low"),
    _picture("output_format", "meaning", neutral=("auto",), example="webp"),
    _picture("background", "meaning", neutral=("auto", "opaque"), example="transparent"),
    row(
        "images", "meaning", field="images", send="openai responses compatible gemini", wires={CHAT: "image"},
        neutral=((),), example=(Image(data=b"\x89PNG", media_type="image/png"),),
    ),
    _picture("mask", "meaning", example=Image(data=b"\x89PNG", media_type="image/png")),
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

ROWS: Final = tuple(each for section in SECTIONS.values() for each in section)

LACKABLE: Final = frozenset(each.name for each in ROWS if each not in _FORM)
"""The names that `RequestTarget.lacks` may contain. Formats and tools have fields of their own in a target."""
