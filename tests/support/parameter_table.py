"""``docs/parameters.md``, made from the table."""

from __future__ import annotations

from llm_protocol.parameters.table import SECTIONS, Cell, Parameter
from llm_protocol.parameters.targets import TARGETS

HEAD = """\
# Parameters

What becomes of each parameter at each provider. This page is made from `llm_protocol.parameters.table` by
`bin/make-docs`; a test sends every cell.

* **sent**: as it is, under the provider's own name for it. Where a model takes less than its vendor, the value is put
  within what the model takes, and told as `translated`.
* **translated**: the provider is told the nearest it has.
* **left out**: the provider is not told. What asks for nothing (`n: 1`, `logprobs: false`) is left out without a word.
* **emulated**: the runtime does it.
* **refused**: the candidate is passed over. If no candidate is left, the request fails with `unsupported_parameter`
  before any call, and the message names models that can.

Everything left out, translated or emulated is told: in the header `x-llm-runtime-adjusted`, and in
`llm_runtime.adjusted` of the body for clients that send the object `llm_runtime`; in Python as `response.adjusted`.
`"llm_runtime": {"strict": true}`, or `strict = true` of a route, refuses what would be left out or translated.

A field that has no row goes on to providers of the same wire and is refused elsewhere. Names are those of the wire
that has the parameter; `/` stands between the names on different wires.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(title, rows) for title, rows in SECTIONS.items())


def _section(title: str, rows: tuple[Parameter, ...]) -> str:
    head = f"\n## {title}\n\n| parameter | {' | '.join(TARGETS)} |\n|---|{'---|' * len(TARGETS)}\n"
    return head + "".join(_line(row) for row in rows)


def _line(row: Parameter) -> str:
    names = dict.fromkeys([row.name, *row.wires.values()])
    cells = " | ".join(_words(row.cell(target)) for target in TARGETS)
    return f"| {' / '.join(f'`{name}`' for name in names)} | {cells} |\n"


_WORDS = {
    "send": "sent",
    "translate": "translated",
    "leave out": "left out",
    "emulate": "emulated",
    "refuse": "refused",
}


def _words(cell: Cell) -> str:
    return f"{_WORDS[cell.action]}: {cell.words}" if cell.words else _WORDS[cell.action]
