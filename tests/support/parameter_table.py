"""``docs/parameters.md``, made from the table."""

from __future__ import annotations

from collections.abc import Sequence

from llm_protocol.parameters.table import (
    ANTHROPIC,
    CHAT,
    COHERE,
    GEMINI,
    RESPONSES,
    SECTIONS,
    Cell,
    Parameter,
)
from llm_protocol.parameters.targets import TARGETS, RequestTarget

HEAD = """\
# Parameters

This page shows how each parameter is handled for each provider. It is generated from `llm_protocol.parameters.table`
by `bin/make-docs`; a test sends every cell.

* **sent**: unchanged, under the provider's name for the parameter. If a model accepts less than its vendor, the value
  is adjusted to the model, and reported as `translated`.
* **translated**: the provider's nearest value is sent.
* **left out**: the parameter is not sent. A value without an effect (`n: 1`, `logprobs: false`) is left out without a
  report.
* **emulated**: the runtime implements the parameter itself.
* **refused**: the candidate is skipped. If no candidate is left, the request fails with `unsupported_parameter`
  before any call, and the message names models that support it.

Everything left out, translated or emulated is reported: in the header `x-llm-runtime-adjusted`, and in
`llm_runtime.adjusted` of the body for clients that send the object `llm_runtime`; in Python as `response.adjusted`.
`"llm_runtime": {"strict": true}`, or `strict = true` of a route, refuses parameters that would be left out or
translated.

A field without a row is forwarded to providers of the same wire, and refused elsewhere. Names are those of the wires
that have the parameter, separated by `/`. The column *from* has the wires on which a client can send it.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(title, rows) for title, rows in SECTIONS.items())


def _section(title: str, rows: tuple[Parameter, ...]) -> str:
    # OpenAI's embeddings and images have endpoints of their own, whichever API its chats use.
    targets = [each for name, each in TARGETS.items() if name != "responses" or title not in ("Embeddings", "Images")]
    head = f"\n## {title}\n\n| parameter | from | {' | '.join(each.name for each in targets)} |\n"
    return head + f"|---|---|{'---|' * len(targets)}\n" + "".join(_line(row, targets) for row in rows)


def _line(row: Parameter, targets: Sequence[RequestTarget]) -> str:
    names = dict.fromkeys([row.name, *row.wires.values()])
    cells = " | ".join(_words(row.cell(target)) for target in targets)
    return f"| {' / '.join(f'`{name}`' for name in names)} | {_from(row)} | {cells} |\n"


_CLIENTS = {CHAT: "chat", RESPONSES: "responses", ANTHROPIC: "anthropic", GEMINI: "gemini", COHERE: "cohere"}


def _from(row: Parameter) -> str:
    if row.wires.keys() >= _CLIENTS.keys():
        return "all"
    return ", ".join(words for wire, words in _CLIENTS.items() if wire in row.wires) or "programs"


_WORDS = {
    "send": "sent",
    "translate": "translated",
    "leave out": "left out",
    "emulate": "emulated",
    "refuse": "refused",
}


def _words(cell: Cell) -> str:
    return f"{_WORDS[cell.action]}: {cell.words}" if cell.words else _WORDS[cell.action]
