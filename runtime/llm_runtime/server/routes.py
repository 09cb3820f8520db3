"""The table of endpoints, and the choice of the endpoint for a request: find the row by path and method, then check
Host, Origin and key as the row requires. ``{name}`` in a pattern matches one segment of the path, ``{name...}`` the
rest of it; both are percent-decoded.

The client's wire is recognised from the path. If several wires share the path, the headers of the client's SDK decide.
A new wire is one more row of each table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, final
from urllib.parse import unquote

from llm_runtime.server import endpoints, native, operations, stored
from llm_runtime.server.access import Role
from llm_runtime.server.client_wire import ANTHROPIC, CEREBRAS, COHERE, GEMINI, OPENAI, ClientWire
from llm_runtime.server.endpoints import ask, preflight
from llm_runtime.server.http_error import HttpError, not_found, too_many_connections
from llm_runtime.server.passthrough import PREFIX, passing
from llm_runtime.server.request_context import Endpoint, RequestContext


class Route(NamedTuple):
    """One row of the table. With ``keyless``, Host and Origin are checked, but no key is needed; with ``open``, none of
    them is checked. With ``operators``, requests are served even when the connection limit is reached. ``role`` is the
    role that a key needs, if keys are configured.
    """

    method: str
    pattern: str
    endpoint: Endpoint
    keyless: bool = False
    open: bool = False
    operators: bool = False
    role: Role = Role.CALLER


ROUTES = (
    Route("GET", "/v1/responses", endpoints.websocket),
    Route("POST", "/v1/responses", stored.create),
    Route("POST", "/v1/responses/input_tokens", endpoints.count_for_response),
    Route("POST", "/v1/responses/compact", endpoints.compact),
    Route("GET", "/v1/responses/{id}", stored.retrieve),
    Route("DELETE", "/v1/responses/{id}", stored.delete),
    Route("GET", "/v1/responses/{id}/input_items", stored.list_input_items),
    Route("POST", "/v1/responses/{id}/cancel", stored.cancel),
    Route("POST", "/v1/chat/completions", ask),
    Route("POST", "/v1/completions", ask),
    Route("POST", "/v1/embeddings", ask),
    Route("POST", "/v1/images/generations", ask),
    Route("POST", "/v1/images/edits", ask),
    Route("POST", "/v1/code/generations", ask),
    Route("POST", "/v1/messages", ask),
    Route("POST", "/v1/messages/count_tokens", endpoints.count_for_messages),
    Route("POST", "/v1beta/models/{id...}:countTokens", endpoints.count_for_contents),
    Route("POST", "/v1/models/{id...}:countTokens", endpoints.count_for_contents),
    Route("POST", "/v1beta/models/{id...}", ask),
    Route("POST", "/v1/models/{id...}", ask),
    Route("POST", "/v2/chat", ask),
    Route("POST", "/v2/embed", ask),
    Route("POST", "/v1/embed", ask),
    Route("GET", "/v1/models", endpoints.list_models),
    Route("GET", "/v1/models/{id...}", endpoints.get_model),
    Route("GET", "/v1beta/models", endpoints.list_models),
    Route("GET", "/v1beta/models/{id...}", endpoints.get_model),
    Route("GET", "/v1/runtime", native.greet),
    Route("GET", "/v1/runtime/models", native.list_models),
    Route("GET", "/v1/runtime/ranking", native.rank),
    Route("POST", "/v1/runtime/count_tokens", native.count_tokens),
    Route("DELETE", "/v1/runtime/knowledge", native.forget),
    Route("GET", "/v1/runtime/tree", operations.tree),
    Route("GET", "/v1/runtime/explain", operations.explain),
    Route("GET", "/v1/runtime/statistics", operations.statistics),
    Route("GET", "/v1/runtime/spend", operations.spend),
    Route("GET", "/v1/runtime/requests", operations.recent_requests),
    Route("GET", "/v1/runtime/configuration", operations.configuration, role=Role.ADMIN),
    Route("POST", "/v1/runtime/reload", operations.reload, role=Role.ADMIN),
    Route("GET", "/metrics", operations.metrics, operators=True, role=Role.METRICS),
    Route("GET", "/", operations.dashboard, keyless=True),
    Route("GET", "/livez", operations.livez, open=True, operators=True),
    Route("GET", "/health", operations.livez, open=True, operators=True),
    Route("GET", "/readyz", operations.readyz, open=True, operators=True),
)


def _compiled(pattern: str) -> re.Pattern[str]:
    segment = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
    return re.compile(re.sub(r"\{(\w+)\.\.\.\}", r"(?P<\1>.+)", segment))


_PREFIXES = {
    "/v1beta": GEMINI,
    "/v2/": COHERE,
    "/v1/messages": ANTHROPIC,
    "/v1/embed": COHERE,
    "/v1/chat/": OPENAI,
    "/v1/completions": OPENAI,
    "/v1/embeddings": OPENAI,
    "/v1/images/": OPENAI,
    "/v1/code/": OPENAI,
    "/v1/responses": OPENAI,
}
"""The wires of paths, by the beginning of the path. The longest matching beginning decides."""

_GEMINI_METHOD = re.compile(r":(?:generate|streamGenerate|embed|batchEmbed|count)[A-Z][A-Za-z]*$")
"""The end of a path of Google's clients. Only known methods match, because a colon alone may be part of a model name.
"""

_CEREBRAS_AGENT = re.compile(r"(?:Async)?Cerebras/")
"""The beginning of the User-Agent of Cerebras' SDK."""

_SORTED = sorted(_PREFIXES, key=len, reverse=True)

_VERSIONS = ("/v1", "/v1beta", "/v2")
"""Version prefixes that a path may lack. The first one that makes the path a known one is used."""

_BARE_MODEL = re.compile(r"(/v1beta|/v1)/([^/:]+/[^:]+:(?:generate|streamGenerate|embed|batchEmbed|count)[A-Za-z]+)")
"""The path of the AI SDK's Google client for a model with a slash in its name: ``models/`` is missing."""

_VERSION_BEFORE_VERSION = re.compile(r"/v\d(?:beta)?/(?=v\d(?:beta)?/)")


@final
class PathRoutes:
    """The rows of one path by method, empty for an unknown path, and the properties that all of them share: see
    `Route`.
    """

    __slots__ = ("by_method", "keyless", "open", "operators")

    def __init__(self, pattern: str) -> None:
        routes = [route for route in ROUTES if route.pattern == pattern]
        self.by_method = {route.method: route for route in routes}
        self.keyless = bool(routes) and all(route.keyless for route in routes)
        self.open = bool(routes) and all(route.open for route in routes)
        self.operators = bool(routes) and all(route.operators for route in routes)


_EXACT = {route.pattern: PathRoutes(route.pattern) for route in ROUTES if "{" not in route.pattern}
_PATTERNS = {
    route.pattern: (_compiled(route.pattern), PathRoutes(route.pattern)) for route in ROUTES if "{" in route.pattern
}
_UNKNOWN = PathRoutes("")


def find(path: str) -> tuple[str, PathRoutes, Mapping[str, str]]:
    """Return the normalized path, its rows, and the values of the names in its pattern. A path may lack the version,
    repeat it, or end in a slash, because base URLs are written in all these ways.
    """
    if (exact := _EXACT.get(path)) is not None:
        return path, exact, {}
    for served in _spellings(path):
        if (exact := _EXACT.get(served)) is not None:
            return served, exact, {}
        for pattern, routes in _PATTERNS.values():
            if found := pattern.fullmatch(served):
                return served, routes, {name: unquote(value) for name, value in found.groupdict().items()}
    return path, _UNKNOWN, {}


def _spellings(path: str) -> Iterator[str]:
    """Return the possible meanings of ``path``, the likeliest first."""
    plain = path.rstrip("/") or "/"
    yield plain
    if (doubled := _VERSION_BEFORE_VERSION.match(plain)) is not None:
        yield plain[doubled.end() - 1 :]
    if (bare := _BARE_MODEL.fullmatch(plain)) is not None:
        yield f"{bare[1]}/models/{bare[2]}"
    for version in _VERSIONS:
        yield version + plain


def choose(routes: PathRoutes, method: str) -> Route:
    """The row for ``method``. Raises `HttpError`."""
    methods = routes.by_method
    if not methods:
        raise not_found("path. OpenAI's and Anthropic's APIs are under /v1, Gemini's under /v1beta, Cohere's under /v2")
    route = methods.get("GET" if method == "HEAD" else method)
    if route is None:
        allowed = ", ".join(sorted(methods))
        raise HttpError(405, "method_not_allowed", f"This path allows only {allowed}.", headers=(("allow", allowed),))
    return route


def wire_of(path: str, headers: Mapping[str, str]) -> ClientWire:
    """The wire of the response to a request, including an error response."""
    for prefix in _SORTED:
        if path.startswith(prefix):
            found = _PREFIXES[prefix]
            return CEREBRAS if found is OPENAI and _CEREBRAS_AGENT.match(headers.get("user-agent", "")) else found
    if path.startswith("/v1/models/") and _GEMINI_METHOD.search(path):
        return GEMINI
    if "anthropic-version" in headers:
        return ANTHROPIC
    if "x-goog-api-key" in headers or "x-goog-api-client" in headers:
        return GEMINI
    agents = headers.get("user-agent", ""), headers.get("x-fern-sdk-name", ""), headers.get("x-client-name", "")
    if any(each.lower().startswith("cohere") for each in agents):
        return COHERE
    return OPENAI


def endpoint_of(context: RequestContext, *, operators_only: bool = False) -> Endpoint:
    """The endpoint of a request. Also sets the caller, the path parameters and the wire of the response.

    With ``operators_only`` only health and metrics are served. Raises `HttpError`.
    """
    request, access = context.request, context.server_state.access
    if request.path.startswith(PREFIX):
        return _passing(context, operators_only=operators_only)
    request.path, routes, context.params = find(request.path)
    context.wire = wire_of(request.path, request.headers)
    if operators_only and not routes.operators:
        raise too_many_connections()
    if request.method == "OPTIONS" and access.allows_origin(request.headers.get("origin")):
        return preflight
    if not routes.open:
        access.check_place(request.headers, request.query, context.local_host)
        if not routes.keyless:
            context.caller = access.check_key(request.headers, context.peer_host)
            context.belongs = True
    route = choose(routes, request.method)
    if not route.open and not route.keyless:
        access.check_role(context.caller, route.role)
    return route.endpoint


def _passing(context: RequestContext, *, operators_only: bool) -> Endpoint:
    """Return the endpoint of a request below `PREFIX`. The rest of its path is the vendor's, so it has no row in the
    table. Also sets the caller and the wire. Raises `HttpError`.
    """
    request, access = context.request, context.server_state.access
    context.wire = wire_of(request.path, request.headers)
    if operators_only:
        raise too_many_connections()
    if request.method == "OPTIONS" and access.allows_origin(request.headers.get("origin")):
        return preflight
    access.check_place(request.headers, request.query, context.local_host)
    context.caller = access.check_key(request.headers, context.peer_host)
    context.belongs = True
    access.check_role(context.caller, Role.CALLER)
    return passing(context)
