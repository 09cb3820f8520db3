"""Escape other models' texts in a prompt, so that they cannot close their tag or open another. These texts are data
between tags.

Only the tags of this package's own prompts are escaped, so code and markup in an answer stay unchanged.
"""

from __future__ import annotations

import re

TAGS = ("entry", "context", "answered_before", "answer", "draft")

# One class for spaces and slashes: two adjacent repetitions would take quadratic time for many spaces.
_TAG = re.compile(rf"<(?=[\s/]*(?:{'|'.join(TAGS)})\b)", re.IGNORECASE)
_NAME = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": " ", "\r": " "})


def escape(text: str) -> str:
    """Return the text with ``&lt;`` at the beginning of each of our tags."""
    return _TAG.sub("&lt;", text)


def escape_name(text: str) -> str:
    """Return the text, escaped and on one line, for the value of an attribute in quotes."""
    return text.translate(_NAME)
