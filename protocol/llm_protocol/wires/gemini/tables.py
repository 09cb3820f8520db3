"""Gemini's words and its models' habits, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from llm_protocol.response import FinishReason

NAME = "gemini"
VERSION = "v1beta"
"""The API's version, as it stands in every path: the one that all traffic we have seen uses."""

FINISH_REASONS: dict[str, FinishReason] = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "CONTINUATION": FinishReason.LENGTH,
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "LANGUAGE",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "ESCALATION",
            "PUP_LIMITED_DISABLED",
            "MODEL_ARMOR",
        ),
        FinishReason.CONTENT_FILTER,
    ),
}
"""A word that is neither here nor in `BROKEN_REASONS` is unknown: no ordinary stop, no error that costs the text."""

SENT_REASONS = {
    FinishReason.STOP: "STOP",
    FinishReason.TOOL_CALLS: "STOP",
    FinishReason.LENGTH: "MAX_TOKENS",
    FinishReason.CONTENT_FILTER: "SAFETY",
    FinishReason.UNKNOWN: "OTHER",
    FinishReason.ERROR: "OTHER",
}
BROKEN_REASONS = frozenset(
    [
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
        "NO_IMAGE",
        "IMAGE_OTHER",
    ]
)
"""The model did not come to its end."""
ERROR_REASONS = BROKEN_REASONS | {"OTHER"}
BLOCK_REASONS = frozenset(
    ["OTHER", "JAILBREAK", "BLOCKLIST", "PROHIBITED_CONTENT", "SAFETY", "IMAGE_SAFETY", "MODEL_ARMOR"]
)

TASK_TYPES = {
    "search_document": "RETRIEVAL_DOCUMENT",
    "search_query": "RETRIEVAL_QUERY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
    "semantic_similarity": "SEMANTIC_SIMILARITY",
    "question_answering": "QUESTION_ANSWERING",
    "fact_verification": "FACT_VERIFICATION",
    "code_retrieval_query": "CODE_RETRIEVAL_QUERY",
}
INPUT_TYPES = {task: name for name, task in TASK_TYPES.items()}


class Thinking(NamedTuple):
    """How one family of models is told how much to think. ``levels`` maps an effort to ``thinkingLevel``, ``budgets``
    to ``thinkingBudget``; an effort in neither is refused. Which of the levels a model has is in
    `llm_protocol.model_rules`.
    """

    models: re.Pattern[str]
    levels: dict[str, str]
    budgets: Mapping[str, int | None]
    needs_signatures: bool = False
    """A tool call in the history must bear a signature, or the request is refused."""


_LEVELS = {name: name.upper() for name in ("minimal", "low", "medium", "high", "xhigh")}
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}

THINKING = (
    Thinking(re.compile(r"gemini-2\.5-pro"), {}, {"none": 128, **_BUDGETS, "xhigh": 32768, "max": 32768}),
    Thinking(re.compile(r"gemini-2\.5"), {}, {"none": 0, **_BUDGETS, "xhigh": 24576, "max": 24576}),
    Thinking(re.compile(r"(gemini-(1|2\.0)|gemma|learnlm)"), {}, {"none": None}),
    # The rest are Gemini 3 and later, the "-latest" names, and names we do not know.
    Thinking(re.compile(r""), _LEVELS, {}, needs_signatures=True),
)


def thinking_of(model: str) -> Thinking:
    """The habits of ``model``."""
    name = model.rpartition("/")[2]
    return next(family for family in THINKING if family.models.match(name))


NO_SIGNATURE = "skip_thought_signature_validator"
"""What Gemini 3 accepts in place of a signature on a tool call that another model made."""

ASPECTS: dict[str, tuple[int, int]] = {
    "1:1": (1024, 1024),
    "3:2": (1536, 1024),
    "2:3": (1024, 1536),
    "4:3": (1152, 864),
    "3:4": (864, 1152),
    "5:4": (1280, 1024),
    "4:5": (1024, 1280),
    "16:9": (1344, 756),
    "9:16": (756, 1344),
    "21:9": (1568, 672),
}
"""The aspect ratios that image models know, each with the picture size that stands for it at 1K."""

SCALES = {"1K": 1, "2K": 2, "4K": 4}
