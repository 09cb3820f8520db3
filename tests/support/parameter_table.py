"""``docs/parameters.md``, made from the table."""

from __future__ import annotations

from llm_protocol.parameters.table import SECTIONS, Cell, Parameter
from llm_protocol.parameters.targets import TARGETS

HEAD = """\
# Parameters

What happens to each parameter at each provider. This page is generated from `llm_protocol.parameters.table` by
`bin/make-docs`; a test sends every cell.

* **sent**: unchanged, under the provider's own name for it. If a model accepts less than its vendor, the value is
  adjusted to the model, and reported as `translated`.
* **translated**: the provider's nearest value is sent.
* **left out**: it is not sent. A value without an effect (`n: 1`, `logprobs: false`) is left out without a report.
* **emulated**: the runtime does it.
* **refused**: the candidate is skipped. If no candidate is left, the request fails with `unsupported_parameter`
  before any call, and the message names models that support it.

Everything left out, translated or emulated is reported: in the header `x-llm-runtime-adjusted`, and in
`llm_runtime.adjusted` of the body for clients that send the object `llm_runtime`; in Python as `response.adjusted`.
`"llm_runtime": {"strict": true}`, or `strict = true` of a route, refuses what would be left out or translated.

A field without a row is forwarded to providers of the same wire, and refused elsewhere. Names are those of the wires
that have the parameter, separated by `/`.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(title, rows) for title, rows in SECTIONS.items())


def _section(title: str, rows: tuple[Parameter, ...]) -> str:
    head = f"\n## {title}\n\n| parameter | {' | '.join(TARGETS)} |\n|---|{'---|' * len(TARGETS)}\n"
    return head + "".join(_line(row) for row in rows)


def _line(row: Parameter) -> str:
    names = dict.fromkeys([row.name, *row.wires.values()])
    cells = " | ".join(_words(row.cell(TARGETS[target])) for target in TARGETS)
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
