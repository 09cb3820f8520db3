"""The live page of a running daemon: one document, made of the files beside this one.

It holds nothing of the daemon it comes from. All it shows it reads from the daemon's own endpoints, with the key that
its reader types. Names come from configurations and texts from vendors, so the page is forbidden, by its policy, to
make anything but text of them, to run anything but its own script, and to talk to anyone but its own daemon.
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
"""In this order they are one script."""

_CLIENT_ERRORS = [kind for kind, rule in RULES.items() if rule.client_error and kind is not FailureKind.CANCELLED]


@cache
def page() -> WireResponse:
    """The page and its headers; the files are read the first time."""
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
    """What the policy calls this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
