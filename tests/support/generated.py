"""What of the documentation is made from the code: ``bin/make-docs`` writes it, tests/docs compares."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from llm_protocol.errors import error_for
from llm_protocol.failures import RULES, Failure, Settlement, Step
from llm_protocol.vendors import VENDORS
from llm_runtime.fake import FakeProvider
from support.bounds import page as limits_page
from support.offers import TITLES, TYPES, offer
from support.parameter_table import page as parameters_page
from support.reference import page as configuration_reference
from support.walk import as_written, walks
from support.walk import page as walk_page

ROOT = Path(__file__).resolve().parents[2]

FAILURES = """\
# Failures

Every request ends with a complete response or with one failure. This page lists the kinds of failures. It is generated
from `llm_protocol.failures.RULES` by `bin/make-docs`.

A client over HTTP gets the status and an error object. The table shows the `code` of the error object in OpenAI's
format; clients of Anthropic, Gemini and Cohere get the format of their API. A program that embeds the runtime gets an
exception of `llm_protocol.errors`; its attribute `failure` contains the kind.

The column *then* shows what the runtime does after an attempt has failed:

* **retry**: it may try the same candidate again after a wait, or another candidate at once.
* **next**: it may try only another candidate.
* **stop**: it tries nothing else.

A vendor's header `x-should-retry` takes precedence: `true` means *retry*, and `false` turns *retry* into *next*. After
a token was delivered, [`on_broken_stream`](how-to/routes.md#when-a-stream-breaks) decides.

| kind | meaning | then | HTTP | `code` | exception |
|---|---|---|---|---|---|
"""

EFFECTS = """
## Further consequences

The second table is for the operator. Its columns:

* **Fault**: who caused the failure. *provider*: the vendor, the network, or the provider's actor. Only these failures
  lower the success rate of the deployment. *request*: the request asks for something that is impossible or not allowed.
  *caller*: the caller cancelled the request, or the request's time or budget is used up. *runtime*: a limit, a bug or
  the shutdown of this runtime.
* **Circuit breaker**: whether the circuit breaker of the deployment or of the whole provider counts the failure. Empty:
  neither counts it. `network` counts for the deployment if the connection broke after it was made.
* **Pause**: the seconds for which the selector does not choose the deployment or provider. Empty: no pause. If the
  failure has the fault *provider* and the vendor sent a Retry-After, the pause is as long as the Retry-After says, at
  most 300 s. Three kinds have exceptions. `auth`: if the vendor's status was 403, only the deployment
  is paused, because the key may be valid for other models. `rate_limited` and `quota`: if the vendor says whether the
  limit is that of the model or of the account, the deployment or the provider is paused.
* **Limits**: what is refunded to the rate limits: the request and its tokens (*all*), only the tokens, or nothing. If
  the request was not sent, everything is refunded.
* **Billed**: whether the vendor may bill the request. The runtime assumes that a response with an error status is not
  billed.
* **Client may retry**: whether a client should send the request again. If not, the error has the header
  `x-should-retry: false`. An error after part of a response was delivered, or after several attempts of the daemon,
  always has this header.
* **Advice for the operator**: what `llm-runtime check` prints if it cannot read the model list of a provider.

| kind | fault | circuit breaker | pause | limits | billed | client may retry | advice for the operator |
|---|---|---|---|---|---|---|---|
"""

BACK = {Settlement.REFUNDED: "all", Settlement.REFUNDED_TOKENS: "tokens", Settlement.CHARGED: "nothing"}


def failures() -> str:
    """``docs/failures.md``."""
    rows = [
        f"| `{kind.value}` | {rule.meaning} | {Step(rule.step).value} | {rule.status} | `{rule.code}` "
        f"| `{type(error_for(Failure(kind=kind, message=''))).__name__}` |\n"
        for kind, rule in RULES.items()
    ]
    effects = [
        f"| `{kind.value}` | {rule.fault.value} | {rule.scope.value if rule.breaks else ''} "
        f"| {f'{rule.pause_s:g} ({rule.scope.value})' if rule.pause_s else ''} | {BACK[rule.settlement]} "
        f"| {'yes' if rule.billed else 'no'} | {'yes' if rule.client_retry else 'no'} "
        f"| {rule.advice.format(entry='providers.NAME')} |\n"
        for kind, rule in RULES.items()
    ]
    return FAILURES + "".join(rows) + EFFECTS + "".join(effects)


def providers() -> str:
    """The README's table of vendors."""
    lines = [f"| | {' | '.join(TYPES.values())} |", f"|---|{'---|' * len(TYPES)}"]
    for kind, name in TITLES.items():
        lines.append(f"| {name} | {' | '.join(offer(kind, request_type).value for request_type in TYPES)} |")
    return "\n".join(lines)


def vendors() -> str:
    """The table of kinds in ``docs/configuration.md``."""
    rows = ["| `kind` | vendor | `base_url` if omitted | `api_key` | variables |", "|---|---|---|---|---|"]
    for kind, vendor in VENDORS.items():
        address = f"`{vendor.base_url}`" if vendor.base_url else "has none" if vendor.local else "must be given"
        key = "has none" if vendor.local else "needed" if vendor.key_variables else "optional"
        found = ", ".join(f"`{each}`" for each in vendor.key_variables) or "–"
        rows.append(f"| `{kind}` | {vendor.title} | {address} | {key} | {found} |")
    return "\n".join(rows)


def mounts() -> str:
    """The table of base URLs in ``docs/fake-provider.md``."""
    fake = FakeProvider(port=8090)
    rows = [
        "| `kind` | `base_url` |",
        "|---|---|",
        *(f"| `{kind}` | `{fake.base_url(kind)}` |" for kind in fake.vendors),
    ]
    return "\n".join(rows)


def with_block(text: str, name: str, block: str) -> str:
    """``text`` with what stands between the marks of ``name`` replaced."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
    if len(marks.findall(text)) != 1:
        raise ValueError(f"there must be one <!-- {name} --> … <!-- /{name} -->")
    return marks.sub(lambda found: found[1] + block + found[2], text)


def architecture() -> str:
    """``docs/architecture.md`` with the walks as they are."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    for name, paths in walks()._asdict().items():
        mark = name.replace("_", " ")
        written = text.partition(f"<!-- {mark} -->")[2].partition(f"<!-- /{mark} -->")[0]
        text = with_block(text, mark, walk_page(as_written(paths, written)))
    return text


def documents() -> dict[Path, str]:
    """Every file that is made, or made in part, with what it should be."""
    readme, configuration = ROOT / "README.md", ROOT / "docs" / "configuration.md"
    fake = ROOT / "docs" / "fake-provider.md"
    return {
        ROOT / "docs" / "failures.md": failures(),
        ROOT / "docs" / "parameters.md": parameters_page(),
        ROOT / "docs" / "limits.md": limits_page(),
        configuration: with_block(
            with_block(configuration.read_text(), "vendors", vendors()), "reference", configuration_reference()
        ),
        fake: with_block(fake.read_text(), "mounts", mounts()),
        readme: with_block(readme.read_text(), "providers", providers()),
    }


def main() -> None:
    """Write those that have changed."""
    logging.getLogger().addHandler(logging.NullHandler())  # the walk's crash is meant
    for path, text in {**documents(), ROOT / "docs" / "architecture.md": architecture()}.items():
        if text != path.read_text():
            path.write_text(text)
            print(path.relative_to(ROOT))
