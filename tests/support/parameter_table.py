"""``docs/parameters.md``, made from the table."""

from __future__ import annotations

from collections.abc import Sequence

from llm_protocol.parameters.rows import (
    ANTHROPIC,
    CHAT,
    COHERE,
    EFFORT_BUDGETS,
    GEMINI,
    RESPONSES,
    Cell,
    Parameter,
)
from llm_protocol.parameters.table import SECTIONS
from llm_protocol.parameters.targets import TARGETS, RequestTarget

HEAD = """\
# Parameters

This page shows what happens to each parameter of a request at each kind of provider. It is generated from
`llm_protocol.parameters.table` by `bin/make-docs`. A test sends a request for every cell of the tables.

* **sent**: the value is sent unchanged, under the provider's name for the parameter. If the provider or the model
  accepts only some values, the nearest of these is sent, and reported as `translated`; parameters of sampling and
  reasoning that the model refuses are left out. If there are more `stop` sequences than the provider accepts, `stop`
  is emulated. A `user` or `prompt_cache_key` that is too long for the provider is sent as its SHA-256.
* **translated**: the provider's nearest value is sent.
* **left out**: the parameter is not sent.
* **emulated**: the runtime implements the parameter itself.
* **refused**: the candidate is skipped. If no candidate is left, the request fails with `unsupported_parameter` before
  any call, and the message names the providers' default models that support it. A combination of parameters that the
  provider does not accept is refused, too, such as a response format together with tools at Cohere.

A value without an effect (`n: 1`, `logprobs: false`) is left out without a report, also where the parameter is
refused. Every other parameter that is left out, translated or emulated is reported: in the header
`x-llm-runtime-adjusted` (at most 2,048 bytes); in the body as `llm_runtime.adjusted`, if the request contains the
object `llm_runtime`, and always over the Responses API; in Python as `response.adjusted`.
With `"llm_runtime": {"strict": true}` in a request, or `strict = true` in a route or a key, a candidate is also
skipped if a parameter would be left out or translated with a report.

The first name in the first column is the name of the row. For a parameter that several wires (API formats) have,
it is often the name in Python. Its other names on the wires follow after a `/`. A colon is followed by the value or the
part of the parameter that the row is about, as in `tool_choice: required`. The column *from* lists the wires on which
a client can send the parameter; `chat` is the Chat Completions API, or OpenAI's endpoints for embeddings and images.
Each of the other columns is a kind of provider: `openai` is OpenAI's Chat Completions API, `responses` is OpenAI's
Responses API, `compatible` is any other server with the Chat Completions API, and `local` is the local model. The
tables for embeddings and images have no column `responses`, because OpenAI has one endpoint for each. A field that is
in no table is sent to providers of the same wire, and refused at all others; Cerebras has a wire of its own.

A hosted tool is a tool that the vendor runs, such as web search. The rows for hosted tools apply if the provider and
the client use different wires. A hosted tool is also left out if the provider's tool lacks a restriction that the
client has set, such as allowed domains of a web search, or if it needs files. To providers of the client's wire,
hosted tools are sent unchanged. For the Responses API of a server other than OpenAI's, the column `responses` applies,
but all tools are functions: custom tools and namespaces are emulated, and hosted tools are left out, whichever wire
the client uses.

If a provider accepts only efforts or only budgets of reasoning tokens, an effort stands for this budget, unless the
capability `budgets` of the model says otherwise:

BUDGETS.
"""


def page() -> str:
    """The whole page."""
    budgets = ", ".join(f"`{effort}` {tokens:,}" for effort, tokens in EFFORT_BUDGETS.items())
    return HEAD.replace("BUDGETS", budgets) + "".join(_section(title, rows) for title, rows in SECTIONS.items())


def _section(title: str, rows: tuple[Parameter, ...]) -> str:
    # OpenAI's embeddings and images have endpoints of their own, whichever API its chats use.
    targets = [each for name, each in TARGETS.items() if name != "responses" or title not in ("Embeddings", "Images")]
    head = f"\n## {title}\n\n| parameter | from | {' | '.join(each.name for each in targets)} |\n"
    return head + f"|---|---|{'---|' * len(targets)}\n" + "".join(_line(row, targets) for row in rows)


def _line(row: Parameter, targets: Sequence[RequestTarget]) -> str:
    names = dict.fromkeys([row.name, *row.wires.values()])
    cells = " | ".join(_words(row.cell(target)) for target in targets)
    about = f": {row.about}" if row.about else ""
    return f"| {' / '.join(f'`{name}`' for name in names)}{about} | {_from(row)} | {cells} |\n"


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
    if cell.words.partition(";")[0] in _WORDS.values():
        return cell.words  # the words name another action than the cell
    return f"{_WORDS[cell.action]}: {cell.words}" if cell.words else _WORDS[cell.action]
