"""The dashboard of a running daemon: one document, made of the files beside this one.

The page contains no data of the daemon. It reads all data from the daemon's own endpoints, with the key that the user
types. Names come from configurations and texts from vendors. So the page's content security policy allows only its
own script and requests to its own daemon, and the script inserts names and texts as plain text.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from llm_protocol.dialect import WireResponse
from llm_protocol.failures import RULES, FailureKind

_HERE = Path(__file__).parent

_SCRIPTS = (
    "common.js",
    "key.js",
    "counts.js",
    "overview.js",
    "models.js",
    "playground.js",
    "requests.js",
    "spend.js",
    "start.js",
)
"""The files of the script, in the order in which they are joined."""

_CLIENT_ERRORS = [kind for kind, rule in RULES.items() if rule.client_error and kind is not FailureKind.CANCELLED]


@cache
def page() -> WireResponse:
    """Return the page and its headers. The files are read at the first call."""
    style, script = _read("page.css"), "\n\n".join(map(_read, _SCRIPTS))
    script = script.replace("/*client errors*/", " ".join(_CLIENT_ERRORS))
    body = _read("page.html").replace("/*style*/", style).replace("/*script*/", script)
    policy = (
        "default-src 'none'",
        f"style-src {_source(style)}",
        f"script-src {_source(script)}",
        "img-src data:",  # the icon
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    headers = (
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", "; ".join(policy)),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    )
    return WireResponse(200, headers, body.encode())


def _read(name: str) -> str:
    return (_HERE / name).read_text("utf-8").strip()


def _source(text: str) -> str:
    """Return the hash source of a text for the content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
