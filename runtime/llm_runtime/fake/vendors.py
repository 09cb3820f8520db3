"""Finds from the path of a request which vendor's wire the request uses. If several vendors have the same path, a
prefix (``/cohere/v1/models``), the headers or the query decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qs, unquote

from llm_protocol.dialect import ServerDialect
from llm_protocol.vendor import Purpose, Vendor, VendorTable
from llm_protocol.wires import WireFormat


class Place(NamedTuple):
    """The vendor and endpoint that a request is addressed to. ``path`` is without the prefix; ``model`` is set for
    `Purpose.MODEL`.
    """

    vendor: Vendor
    purpose: Purpose
    dialect: ServerDialect
    path: str
    model: str = ""


def fakeable(vendors: VendorTable) -> VendorTable:
    """Return the vendors that can be imitated. The kind of each can be the first segment of a path."""
    return VendorTable(vendor for vendor in vendors.values() if not vendor.local)


def split_mount(path: str, vendors: VendorTable) -> tuple[Vendor | None, str]:
    """Return the vendor that the first segment of the path names, if it names one, and the rest of the path."""
    name, slash, rest = path[1:].partition("/")
    return (vendors[name], slash + rest) if name in vendors else (None, path)


def guess_vendor(path: str, query: str, headers: Mapping[str, str], vendors: VendorTable) -> Vendor:
    """Guess from the path, the query and the headers which vendor's client sent the request. If nothing shows it,
    return the first vendor.
    """
    parameters = parse_qs(query).keys()
    for vendor in vendors.values():
        traits = vendor.fake
        if (
            not traits.client_headers.isdisjoint(headers)
            or path.startswith(traits.client_paths)
            or not traits.client_query.isdisjoint(parameters)
            or any(headers.get(name, "").lower().startswith(value) for name, value in traits.client_values)
        ):
            return vendor
    return next(iter(vendors.values()))


def locate(
    method: str, target: str, headers: Mapping[str, str], vendors: VendorTable, only: Vendor | None = None
) -> Place | Vendor:
    """Return the endpoint that a request is addressed to. For an unknown path, return the vendor whose error format
    applies. ``only``: the only vendor to consider.
    """
    path, _, query = target.partition("?")
    mount, path = split_mount(path, vendors)
    guess = guess_vendor(path, query, headers, vendors)
    parameters = only or mount
    speakers: Iterable[Vendor] = (parameters,) if parameters else (guess, *vendors.values())
    for vendor in speakers:
        for route in vendor.routes:
            found = re.fullmatch(route.pattern, path.rstrip("/")) if route.method == method else None
            if found is not None:
                model = unquote(found.groupdict().get("model") or "")
                dialect = _server(vendor, route.wire)
                return Place(vendor, route.purpose, dialect, f"{path}?{query}" if query else path, model)
    return parameters or guess


@lru_cache(maxsize=256)
def _server(vendor: Vendor, wire: WireFormat | None) -> ServerDialect:
    return vendor.server(wire)
