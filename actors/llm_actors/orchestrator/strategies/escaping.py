"""Texts of others in a prompt are data between tags. Here they are made unable to end their tag, or to open another.

Only the tags of this package's own prompts are touched, so that code and markup in an answer reach the reader as they
were written.
"""

from __future__ import annotations

import re

TAGS = ("entry", "context", "answered_before", "answer", "draft")

# One class for spaces and slashes: two repetitions beside each other would take quadratic time over many spaces.
_TAG = re.compile(rf"<(?=[\s/]*(?:{'|'.join(TAGS)})\b)", re.IGNORECASE)
_NAME = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": " ", "\r": " "})


def escape(text: str) -> str:
    """The text with ``&lt;`` for the beginning of every tag of ours."""
    return _TAG.sub("&lt;", text)


def escape_name(text: str) -> str:
    """The text as the value of an attribute."""
    return text.translate(_NAME)
