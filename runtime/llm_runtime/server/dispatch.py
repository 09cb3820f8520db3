"""Choose the endpoint of a request by its head: find the route, then check Host, Origin and key as the route
requires.
"""

from __future__ import annotations

from llm_runtime.server.access import Role
from llm_runtime.server.client_wire import wire_of
from llm_runtime.server.endpoints import preflight
from llm_runtime.server.http_error import too_many_connections
from llm_runtime.server.passthrough import PREFIX, passing
from llm_runtime.server.request_context import Endpoint, RequestContext
from llm_runtime.server.routes import choose, find


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
    """The same below `PREFIX`, where paths are the vendors' and need no route. Raises `HttpError`."""
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
