"""Which models and routes a caller may use. Pure.

For a caller, other models and routes do not exist: the error is "not found", never "forbidden".
"""

from __future__ import annotations

from collections.abc import Collection, Container
from typing import final


@final
class Allowed:
    """The models and routes that one caller may use. Each name in its list is a route, ``provider/model``,
    ``provider/*``, or the name of a model alone, which means that model at every provider.
    """

    __slots__ = ("_bare", "_known", "_models", "_names", "_providers", "_routes")

    def __init__(self, names: Collection[str], providers: Container[str], routes: Container[str] = ()) -> None:
        self._known = providers
        self._routes = {name for name in names if name in routes}
        self._names = [name for name in names if name not in routes]
        self._providers: set[str] = set()
        self._models: set[tuple[str, str]] = set()
        self._bare: set[str] = set()
        for name in self._names:
            head, slash, rest = name.partition("/")
            if not slash or head not in providers:
                self._bare.add(name)
            elif rest == "*":
                self._providers.add(head)
            else:
                self._models.add((head, rest))

    def permits(self, provider: str, model: str) -> bool:
        """Return whether ``model``, as the vendor names it, may be used at ``provider``."""
        return provider in self._providers or (provider, model) in self._models or model in self._bare

    def permits_route(self, name: str) -> bool:
        """Return whether the route may be used."""
        return name in self._routes

    def within_route(self, models: Collection[str]) -> Allowed:
        """Return what a request to a route may use: these ``models`` of the route, in addition to the caller's own."""
        return Allowed((*self._names, *models), self._known)
