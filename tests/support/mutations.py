"""JSON with one value exchanged for another: what a peer with a bug, or without good will, might send."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

odd_values: st.SearchStrategy[Any] = st.sampled_from(
    (None, True, 0, -1, 1.5, "", "x", [], [1], ["x"], {}, {"type": "x"}, {"type": ["x"]}, [{"type": 1}], 2**63)
)


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """``value`` with something in it, or all of it, replaced or left out."""
    paths = list(_paths(value))
    path = draw(st.sampled_from(paths))
    return _replaced(value, path, draw(odd_values), leave_out=draw(st.booleans()))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))


def _replaced(value: Any, path: tuple[Any, ...], new: Any, *, leave_out: bool) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and leave_out:
        del copy[path[0]]
    else:
        copy[path[0]] = _replaced(value[path[0]], path[1:], new, leave_out=leave_out)
    return copy
