"""Choose the endpoint of a request by its head: find the route, then check Host, Origin and key as the
route demands.
"""

from __future__ import annotations

from llm_runtime.server.access import Role
from llm_runtime.server.client_wire import wire_of
from llm_runtime.server.endpoints import preflight
from llm_runtime.server.http_error import too_many_connections
from llm_runtime.server.passthrough import PREFIX, passing
from llm_runtime.server.request_context import Endpoint, RequestContext
from llm_runtime.server.routes import choose, find


def endpoint_of(exchange: RequestContext, *, operators_only: bool = False) -> Endpoint:
    """The endpoint of a request. Also sets the caller, the path parameters and the wire of the response.

    With ``operators_only`` only health and metrics are served. Raises `HttpError`.
    """
    request, access = exchange.request, exchange.service.access
    if request.path.startswith(PREFIX):
        return _passing(exchange, operators_only=operators_only)
    request.path, methods, exchange.params = find(request.path)
    exchange.wire = wire_of(request.path, request.headers)
    if operators_only and not (methods and all(route.operators for route in methods.values())):
        raise too_many_connections()
    if request.method == "OPTIONS" and access.allows_origin(request.headers.get("origin")):
        return preflight
    if not (methods and all(route.open for route in methods.values())):
        access.check_place(request.headers, request.query, exchange.local_host)
        if not (methods and all(route.keyless for route in methods.values())):
            exchange.caller = access.check_key(request.headers, exchange.peer_host)
            exchange.belongs = True
    route = choose(methods, request.method)
    if not route.open and not route.keyless:
        access.check_role(exchange.caller, route.role)
    return route.endpoint


def _passing(exchange: RequestContext, *, operators_only: bool) -> Endpoint:
    """The same below `PREFIX`, where paths are the vendors' and need no route. Raises `HttpError`."""
    request, access = exchange.request, exchange.service.access
    exchange.wire = wire_of(request.path, request.headers)
    if operators_only:
        raise too_many_connections()
    if request.method == "OPTIONS" and access.allows_origin(request.headers.get("origin")):
        return preflight
    access.check_place(request.headers, request.query, exchange.local_host)
    exchange.caller = access.check_key(request.headers, exchange.peer_host)
    exchange.belongs = True
    access.check_role(exchange.caller, Role.CALLER)
    return passing(exchange)
