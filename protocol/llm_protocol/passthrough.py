"""Passthrough requests: which are allowed, at which path they arrive, and which headers are sent along. Pure.

A path here is a path of the vendor's API, without the name of the provider: ``v1/files``. It begins with the version
that ends the provider's base URL. The client may leave the version out: `vendor_path` adds it, so one permission covers
both spellings.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from llm_protocol.client_headers import IDEMPOTENCY

_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "*"))
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f/\\%]")
"""Characters that a decoded segment may not have: servers behind proxies may decode it again, or treat a
backslash as a slash.
"""


class PassthroughRule(NamedTuple):
    """The requests that one entry of ``[keys.X] passthrough`` allows."""

    method: str
    provider: str
    path: re.Pattern[str]

    @classmethod
    def parse(cls, entry: str) -> PassthroughRule:
        """Parse an entry such as ``"GET openai/v1/files/*"``. ``*`` matches any text within one segment of the path,
        ``**`` any text. Raises `ValueError` with a message that shows a valid entry.
        """
        method, _, rest = entry.strip().partition(" ")
        provider, _, path = rest.strip().partition("/")
        if method not in _METHODS or not provider or not path or "*" in provider or " " in path:
            what = "a method (in capitals, or *), a provider's name and a path"
            raise ValueError(f'{entry[:100]!r} is not {what}, such as "GET openai/v1/files/*"')
        words = {"**": ".*", "*": "[^/]*"}
        pattern = "".join(words.get(each) or re.escape(each) for each in re.split(r"(\*\*|\*)", path))
        return cls(method, provider, re.compile(pattern))

    def allows(self, method: str, provider: str, path: str) -> bool:
        """Whether the rule allows a request. ``path`` may be percent-encoded. A permission for GET includes HEAD."""
        if provider != self.provider or self.path.fullmatch(unquote(path)) is None:
            return False
        return self.method in ("*", method) or (method, self.method) == ("HEAD", "GET")


def rules_of(callers: Mapping[str, Collection[str]]) -> dict[str, tuple[PassthroughRule, ...]]:
    """Return the rules of each caller, by name, parsed from its entries."""
    return {name: tuple(map(PassthroughRule.parse, entries)) for name, entries in callers.items()}


def is_plain(path: str) -> bool:
    """Whether ``path`` is unambiguous: it has no empty segment, no ``.`` or ``..``, and no encoded slash."""
    return all(_is_plain(segment) for segment in path.split("/"))


def _is_plain(segment: str) -> bool:
    if not _SEGMENT.fullmatch(segment):
        return False
    text = unquote(segment, errors="replace")
    return not _FORBIDDEN.search(text) and text.partition(";")[0] not in ("", ".", "..")


def vendor_path(base: str, path: str) -> str:
    """Return ``path`` with the version at its beginning. ``base`` is the path of the provider's base URL."""
    last = base.rpartition("/")[2]
    return path if not last or path == last or path.startswith(f"{last}/") else f"{last}/{path}"


def target_of(base: str, path: str) -> str:
    """Return the path of a request to the provider, from the path that `vendor_path` returned. ``base`` is the path of
    the base URL.
    """
    last = base.rpartition("/")[2]
    return f"{base.removesuffix(last)}{path}" if last else f"{base}/{path}"


# ---------------------------------------------------------------- headers

_HOP_BY_HOP: Final = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_NOT_SENT: Final = _HOP_BY_HOP | {
    "accept-encoding",
    "anthropic-workspace-id",
    "api-key",
    "authorization",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "openai-organization",
    "openai-project",
    "origin",
    "referer",
    "user-agent",
    "via",
    "x-api-key",
    "x-goog-api-key",
    "x-goog-user-project",
    "x-real-ip",
}
_PREFIXES_NOT_SENT: Final = ("x-forwarded-", "x-llm-runtime-", "sec-", "cf-", "proxy-")
_NOT_TOLD: Final = _HOP_BY_HOP | {
    "alt-svc",
    "content-length",
    "date",
    "nel",
    "report-to",
    "server",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "via",
    "www-authenticate",
    "x-content-type-options",
}
_PREFIXES_NOT_TOLD: Final = ("access-control-", "x-llm-runtime-", "cross-origin-", "proxy-")
_REQUEST_IDS: Final = frozenset(("x-request-id", "request-id"))

UPSTREAM_ID: Final = "x-llm-runtime-upstream-request-id"
"""The header with the vendor's own id of a request."""


def request_headers(headers: Mapping[str, str], idempotency: str | None) -> tuple[tuple[str, str], ...]:
    """Return the headers of a client that are sent to the vendor. ``idempotency`` replaces the client's idempotency
    key.
    """
    found = _kept(headers.items(), _NOT_SENT.union(_named_in_connection(headers)), _PREFIXES_NOT_SENT)
    return tuple((name, idempotency or value if name == IDEMPOTENCY else value) for name, value in found)


def response_headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The headers of a vendor's response that go to the client, without those that frame the body."""
    found = _kept(headers.items(), _NOT_TOLD.union(_named_in_connection(headers)), _PREFIXES_NOT_TOLD)
    return tuple((UPSTREAM_ID if name in _REQUEST_IDS else name, value) for name, value in found)


def _named_in_connection(headers: Mapping[str, str]) -> set[str]:
    return {name.strip().lower() for name in headers.get("connection", "").split(",")}


def _kept(
    headers: Iterable[tuple[str, str]], dropped: Collection[str], prefixes: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        if name not in dropped and not name.startswith(prefixes):
            yield name, value


# ---------------------------------------------------------------- what a response gives out


def ids_of_created(body: Any) -> Iterator[str]:
    """Return the ids in the decoded response to a POST. The objects with these ids, such as an uploaded file, belong
    to the caller.
    """
    if not isinstance(body, dict):
        return
    inner = body.get("file")
    for each in (body, inner if isinstance(inner, dict) else {}):
        for name in ("id", "name"):
            if isinstance(value := each.get(name), str) and value:
                yield value
