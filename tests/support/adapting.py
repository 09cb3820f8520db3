"""Requests on their way to a vendor: adapted, then encoded, as a provider does it."""

from __future__ import annotations

import msgspec

from llm_protocol.dialect import ClientDialect, WireRequest
from llm_protocol.requests import AnyRequest


def encoded(dialect: ClientDialect, request: AnyRequest, *, stream: bool) -> WireRequest:
    """What goes out for ``request``."""
    return dialect.encode_request(dialect.adapt(request).request, stream=stream)


def adjusted(dialect: ClientDialect, request: AnyRequest) -> list[tuple[str, str, object]]:
    """What is told of the changes: parameter, action, and what was told instead."""
    return [(each.parameter, each.action, each.to) for each in dialect.adapt(request).adjusted]


def without_wire(request: AnyRequest) -> AnyRequest:
    """The request as a program would have made it: not over a wire."""
    parameters = msgspec.structs.replace(request.parameters, wire=None)
    return msgspec.structs.replace(request, parameters=parameters)
