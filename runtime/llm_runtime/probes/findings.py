"""Convert the results of the probes to one check for each thing that the configuration names. Pure.

Vendors' lists are often incomplete (aliases, fine-tuned models), so a model that is not in one is only a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from llm_actors.catalog import Candidate, Catalog
from llm_actors.catalog.actor import LISTING_SECONDS
from llm_protocol.dialect import ModelInfo
from llm_protocol.failures import RULES, Failure, FailureKind
from llm_protocol.lifecycle import NOTICE
from llm_protocol.model_rules import rule_of
from llm_protocol.policy import Policy
from llm_protocol.prices import OwnPrices, price_of
from llm_protocol.vendor import Vendor
from llm_runtime.config import Config, Provider
from llm_runtime.config.conversion import suggestion
from llm_runtime.probes.report import Check, CheckStatus, counted, some

PROVIDER = "provider"
"""The name of the check of a provider in the report."""


class Listing(NamedTuple):
    """A vendor's list of models, or the reason why it is not available."""

    found: Sequence[ModelInfo] | Failure
    seconds: float


# -- the configuration -----------------------------------------------------------------------------------------------


def configuration(config: Config, source: str) -> Iterator[Check]:
    """Return a check of the file itself, and one for each note, such as something allowed but unsafe."""
    parts = [counted(len(config.enabled), "provider")]
    parts += [counted(len(found), thing) for thing, found in (("route", config.routes), ("key", config.keys)) if found]
    yield Check("configuration", source, CheckStatus.OK, ", ".join(parts))
    for note in config.notes:
        yield Check("configuration", source, CheckStatus.WARNING, note)


# -- providers -------------------------------------------------------------------------------------------------------


def provider(name: str, entry: Provider, vendor: Vendor, listing: Listing, url: str) -> Check:
    """Return a check of whether the provider at ``url`` responds and lists its configured models."""
    if isinstance(listing.found, Failure):
        return Check(PROVIDER, name, *_failed(name, entry, vendor, listing.found, url), listing.seconds)
    found, seconds = [model.id for model in listing.found], listing.seconds
    if not found:
        return Check(PROVIDER, name, CheckStatus.WARNING, "responds, but its list of models is empty", seconds)
    has = counted(len(found), "model")
    if entry.wire == "chat" and (lost := [each for each in entry.models if _needs_responses(vendor, each)]):
        message = f'{has}; only the Responses API has {some(lost)}: remove wire = "chat"'
        return Check(PROVIDER, name, CheckStatus.WARNING, message, seconds)
    if missing := [model for model in entry.models if model not in found]:
        hint = suggestion(missing[0], found) if len(missing) == 1 else ""
        return Check(PROVIDER, name, CheckStatus.WARNING, f"not on its list of {has}: {some(missing)}{hint}", seconds)
    if not entry.models and seconds > LISTING_SECONDS:
        slow = f"{has}, but the runtime waits only {LISTING_SECONDS:g} s for a list: set models in the configuration"
        return Check(PROVIDER, name, CheckStatus.WARNING, slow, seconds)
    return Check(
        PROVIDER, name, CheckStatus.OK, f"{has}, including the configured ones" if entry.models else has, seconds
    )


def _needs_responses(vendor: Vendor, model: str) -> bool:
    return rule_of(vendor.facts_key, model).wire == "responses"


def _failed(name: str, entry: Provider, vendor: Vendor, failure: Failure, url: str) -> tuple[CheckStatus, str]:
    message = failure.message.removeprefix(f"{name}: ").rstrip(".")
    message = f"{url}: {message}"  # the failure does not contain the URL, because callers must not see it
    if failure.upstream_status is not None and str(failure.upstream_status) not in message:
        message += f" (HTTP {failure.upstream_status})"
    if failure.upstream_status == 404 and vendor.generic and entry.models:
        address = RULES[FailureKind.MODEL_NOT_FOUND].advice
        return CheckStatus.WARNING, f"{message}: no problem if it has no model list; otherwise {address}"
    advice = failure.rule.advice.format(entry=f"providers.{name}")
    if failure.kind is FailureKind.AUTH and entry.api_key is None:
        advice = f"it needs a key: providers.{name}.api_key"
    # After "too many requests", the key was accepted: the provider works.
    status = CheckStatus.WARNING if failure.kind is FailureKind.RATE_LIMITED else CheckStatus.FAILED
    return status, f"{message}; {advice}" if advice else message


# -- prices ----------------------------------------------------------------------------------------------------------


def prices(config: Config) -> Iterator[Check]:
    """Return checks of whether the prices of the configured models are known."""
    own = OwnPrices(config.prices)
    for name, entry in config.enabled.items():
        vendor = config.vendors[entry.kind]
        named = _named_models(name, entry, config.routes.values())
        unpriced = [model for model in named if own.find(name, model) is None]
        unknown = [model for model in unpriced if price_of(vendor.facts_key, model) is None]
        if not named or vendor.free:
            continue
        if not unknown:
            yield Check("prices", name, CheckStatus.OK, f"known for {counted(len(named), 'model')}")
            continue
        if refusing := [each for each, budget in config.budgets.items() if budget.cost(None, 1) is None]:
            yield Check("prices", name, CheckStatus.WARNING, _refused(name, unknown, refusing))
            continue
        # Compatible servers have other prices, or none.
        status = CheckStatus.OK if vendor.generic else CheckStatus.WARNING
        yield Check(
            "prices", name, status, f"not known for {some(unknown)}: responses have no cost, and max_cost excludes them"
        )


def _refused(provider: str, models: Sequence[str], budgets: Sequence[str]) -> str:
    names = " and ".join(f'"{each}"' for each in budgets)
    who = f"the budget {names} refuses" if len(budgets) == 1 else f"the budgets {names} refuse"
    remedy = f'set [prices."{provider}/{models[0]}"] or unknown_price = "allow"'
    return f"not known for {some(models)}: {who} requests for {'it' if len(models) == 1 else 'them'}; {remedy}"


# -- lifecycle of models ----------------------------------------------------------------------------------------------


def lifecycle(config: Config, catalog: Catalog) -> Iterator[Check]:
    """Return checks of which models are deprecated, were shut down, or will be shut down within `NOTICE`: a warning
    for configured ones, a note for others.
    """
    listed: dict[str, list[str]] = {}
    for candidate, _ in catalog.all_ending():
        listed.setdefault(candidate.provider, []).append(candidate.model)
    for name, entry in config.enabled.items():
        bare = [
            model for route in config.routes.values() for _, model in route.models() if model in listed.get(name, ())
        ]
        named = dict.fromkeys([*_named_models(name, entry, config.routes.values()), *bare])
        if message := [f"{model} {words}" for model in named if (words := catalog.ending(Candidate(name, model)))]:
            yield Check("lifecycle", name, CheckStatus.WARNING, some(message))
        elif found := listed.get(name):
            what = (
                f"of its list, {counted(len(found), 'model')} deprecated or to be shut down within {NOTICE.days} days"
            )
            yield Check("lifecycle", name, CheckStatus.OK, f"{what}: {some(found)}")


def _named_models(name: str, entry: Provider, routes: Collection[Policy]) -> list[str]:
    in_routes = [model for route in routes for _, model in route.models()]
    split = [model.partition("/") for model in in_routes]
    return list(dict.fromkeys([*entry.models, *(rest for head, slash, rest in split if slash and head == name)]))
