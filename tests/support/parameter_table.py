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

Look here to see what happens to a parameter of a request at a certain provider. Find the row of the parameter in one of
the tables, and the column of the provider. The page is generated from `llm_protocol.parameters.table` by
`bin/make-docs`, and tested for every cell.

## The columns and rows

The column *from* lists the APIs over which a client can send the parameter; `chat` is the Chat Completions API, or
OpenAI's endpoints for embeddings and images. Each of the other columns is a kind of provider:

* `openai` is OpenAI's Chat Completions API, and `responses` is OpenAI's Responses API.
* `compatible` is any other server with the Chat Completions API.
* `local` is the local model.

Each row begins with the name of the parameter, often the name in Python. Its names in the APIs follow after a `/`. If
the row is about one value or one part of the parameter, this follows after a colon, as in `tool_choice: required`.

A field that is in no table is sent to providers that have the client's API, and refused at all other providers.
(Cerebras' API counts as different from OpenAI's.)

## What happens to a parameter

* **sent**: the value is sent unchanged, under the provider's name for the parameter.
* **translated**: the provider's nearest value is sent.
* **left out**: the parameter is not sent.
* **emulated**: the runtime implements the parameter itself.
* **refused**: the request is not sent to this provider, but to the next candidate. If there is none, it fails with
  `unsupported_parameter`, and the message names the providers' default models that support the parameter.

The provider or its model may accept less than the table says. If it accepts only some values, the nearest of these is
sent. Parameters of sampling and reasoning that the model refuses are left out. If there are more `stop` sequences than
the provider accepts, `stop` is emulated. A `user` or `prompt_cache_key` that is too long is sent as its SHA-256. A
combination that the provider does not accept is refused, such as a response format together with tools at Cohere.

## How a client learns of it

The response reports every parameter that was left out, translated or emulated:

* in the header `x-llm-runtime-adjusted` (at most 2,048 bytes);
* in the body as `llm_runtime.adjusted`, over the Responses API always, over other APIs if the request contains the
  object `llm_runtime`;
* in Python as `response.adjusted`.

A value without an effect, such as `n: 1` or `logprobs: false`, is left out without a report, also where the parameter
is refused.

To get an error instead of a parameter that is left out or translated, send `"llm_runtime": {"strict": true}` in a
request, or set `strict = true` for a route or a key: such a parameter is then refused.

## Hosted tools and reasoning

A hosted tool is a tool that the vendor runs, such as web search. If the provider has the client's API, hosted tools are
sent unchanged. The rows for hosted tools apply if the provider has another API. In this case, a hosted tool is also
left out if it needs files, or if the provider's tool lacks a restriction that the client has set, such as the allowed
domains of a web search.

For the Responses API of a server other than OpenAI's, the column `responses` applies, but the only tools are functions:
hosted tools are left out, whichever API the client uses, and custom tools and namespaces are emulated.

A client requests reasoning as an effort or as a budget of tokens. For a provider that accepts only one of them, these
values are translated into each other, unless the capability `budgets` of the model says otherwise:

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
