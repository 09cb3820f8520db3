"""What follows from what a provider answered, and from what is known of its prices."""

from __future__ import annotations

from datetime import date

import msgspec
import pytest

from llm_actors.catalog import Catalog
from llm_actors.catalog.actor import LISTING_SECONDS
from llm_protocol.budgets import Budget
from llm_protocol.dialect import ModelInfo
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import Policy
from llm_protocol.requests import LLMProvider, RequestType
from llm_protocol.secret import Secret
from llm_protocol.vendors import VENDORS
from llm_runtime.config import Config, Key, Provider
from llm_runtime.probes import CheckStatus, findings
from llm_runtime.probes.findings import Listing

URL = "https://host.test/v1/models"
KEYED = Provider(kind=LLMProvider.OPENAI, api_key=Secret("sk-CANARY"))


def listed(*models: str, seconds: float = 0.1) -> Listing:
    return Listing([ModelInfo(id=model) for model in models], seconds)


def failed(kind: FailureKind, message: str = "p: so it is.", status: int | None = None) -> Listing:
    return Listing(Failure(kind=kind, message=message, upstream_status=status), 0.2)


def told(listing: Listing, entry: Provider = KEYED) -> tuple[CheckStatus, str]:
    check = findings.provider("p", entry, VENDORS[entry.kind], listing, URL)
    assert (check.what, check.name, check.seconds) == ("provider", "p", listing.seconds)
    assert check.detail.startswith(f"{URL}: ") == isinstance(listing.found, Failure)
    return check.status, check.detail.removeprefix(f"{URL}: ")


def with_models(*models: str, kind: LLMProvider = LLMProvider.OPENAI) -> Provider:
    return Provider(kind=kind, models=models, api_key=Secret("k"))


def test_a_provider_that_lists_its_models_is_fine() -> None:
    assert told(listed("a")) == (CheckStatus.OK, "1 model")
    assert told(listed("a", "b"), with_models("b")) == (CheckStatus.OK, "2 models, including the configured ones")


def test_a_model_that_the_chat_api_does_not_have_is_a_warning_where_nothing_else_may_be_used() -> None:
    entry = msgspec.structs.replace(with_models("gpt-5-pro", "gpt-5.5"), wire="chat")
    said = '2 models; only the Responses API has gpt-5-pro: remove wire = "chat"'
    assert told(listed("gpt-5-pro", "gpt-5.5"), entry) == (CheckStatus.WARNING, said)
    assert told(listed("gpt-5-pro", "gpt-5.5"), with_models("gpt-5-pro", "gpt-5.5"))[0] is CheckStatus.OK


def test_a_configured_model_that_is_not_listed_is_a_warning_with_what_was_meant() -> None:
    assert told(listed("gpt-5", "other"), with_models("gtp-5")) == (
        CheckStatus.WARNING,
        'not on its list of 2 models: gtp-5; did you mean "gpt-5"?',
    )
    assert told(listed("a"), with_models("x", "a", "y")) == (CheckStatus.WARNING, "not on its list of 1 model: x, y")


def test_a_list_that_is_empty_or_slower_than_the_runtime_waits_is_a_warning() -> None:
    assert told(listed()) == (CheckStatus.WARNING, "responds, but its list of models is empty")
    status, detail = told(listed("a", seconds=LISTING_SECONDS + 1))
    assert status is CheckStatus.WARNING
    assert detail.startswith("1 model, but the runtime waits only 10 s for a list")
    assert told(listed("a", seconds=LISTING_SECONDS + 1), with_models("a"))[0] is CheckStatus.OK


@pytest.mark.parametrize(
    ("kind", "right"),
    [
        (
            FailureKind.AUTH,
            "so it is (HTTP 401); check providers.p.api_key: it must refer to a key that is valid for this address",
        ),
        (
            FailureKind.TLS,
            "so it is (HTTP 401); if the certificate is self-signed, set providers.p.ca_file to its file",
        ),
        (FailureKind.NETWORK, "so it is (HTTP 401); is base_url right, and can the server be reached"),
        (FailureKind.PROTOCOL, "so it is (HTTP 401); is base_url the address of the vendor's API"),
        (FailureKind.QUOTA, "so it is (HTTP 401); check the account's quota and billing at the vendor"),
        (FailureKind.CRASHED, "so it is (HTTP 401)"),
    ],
)
def test_a_failure_is_told_with_what_would_be_right(kind: FailureKind, right: str) -> None:
    status, detail = told(failed(kind, status=401))
    assert status is CheckStatus.FAILED
    assert detail.startswith(right)


def test_every_failure_that_asking_for_a_list_can_have_has_advice() -> None:
    """The others are of answers, of requests, or our own."""
    silent = {kind for kind in FailureKind if told(failed(kind))[1] == "so it is"}
    assert silent == {
        FailureKind.TIMEOUT_FIRST_TOKEN,
        FailureKind.TIMEOUT_IDLE,
        FailureKind.TRUNCATED,
        FailureKind.CONTEXT_LENGTH,
        FailureKind.CONTENT_FILTER,
        FailureKind.UNSUPPORTED,
        FailureKind.CANCELLED,
        FailureKind.SHUTTING_DOWN,
        FailureKind.QUEUE_FULL,
        FailureKind.OUT_OF_RESOURCES,
        FailureKind.LOG_LIMIT,
        FailureKind.BUDGET,
        FailureKind.DEADLINE,
        FailureKind.INTERRUPTED,
        FailureKind.PARKED,
        FailureKind.CRASHED,
        FailureKind.INTERNAL,
    }


def test_a_server_that_wants_a_key_and_has_none_is_told_so() -> None:
    bare = Provider(kind=LLMProvider.OPENAI_COMPATIBLE)
    assert told(failed(FailureKind.AUTH, "no", 401), bare)[1] == "no (HTTP 401); it needs a key: providers.p.api_key"


def test_who_is_told_to_slow_down_was_let_in() -> None:
    assert told(failed(FailureKind.RATE_LIMITED))[0] is CheckStatus.WARNING


def test_a_compatible_server_need_not_list_its_models_if_the_configuration_does() -> None:
    missing = failed(FailureKind.MODEL_NOT_FOUND, status=404)
    compatible = LLMProvider.OPENAI_COMPATIBLE
    assert told(missing, with_models("m", kind=compatible))[0] is CheckStatus.WARNING
    assert told(missing, with_models(kind=compatible))[0] is CheckStatus.FAILED
    assert told(missing, with_models("m"))[0] is CheckStatus.FAILED


def test_the_configuration_is_counted_and_its_notes_are_warnings() -> None:
    config = Config(
        providers={"a": KEYED, "b": Provider(kind=LLMProvider.OPENAI, enabled=False)},
        keys={"me": Key(secret=Secret("k")), "you": Key(secret=Secret("l"))},
        routes={"r": Policy()},
        notes=("that is unwise",),
    )
    assert [(each.status, each.detail) for each in findings.configuration(config, "c.toml")] == [
        (CheckStatus.OK, "1 provider, 1 route, 2 keys"),
        (CheckStatus.WARNING, "that is unwise"),
    ]


def test_prices_are_looked_up_for_the_models_that_are_named_anywhere() -> None:
    config = Config(
        providers={
            "known": with_models("gpt-4o-mini"),
            "strange": with_models("gpt-4o", "no-such-model"),
            "own": with_models("mine", kind=LLMProvider.OPENAI_COMPATIBLE),
            "local": Provider(kind=LLMProvider.LOCAL, models=("smollm2",)),
            "unnamed": with_models(),
        },
        routes={"r": Policy(candidates=("known/gpt-4o", "strange/odd", "gpt-4o"), judge="known/gpt-4o")},
    )
    assert [(each.name, each.status, each.detail.partition(":")[0]) for each in findings.prices(config)] == [
        ("known", CheckStatus.OK, "known for 2 models"),
        ("strange", CheckStatus.WARNING, "not known for no-such-model, odd"),
        ("own", CheckStatus.OK, "not known for mine"),
    ]


def test_a_budget_that_refuses_models_without_a_price_is_a_warning_with_the_remedy() -> None:
    config = Config(
        providers={"first": with_models("slow", "fast", kind=LLMProvider.OPENAI_COMPATIBLE)},
        budgets={"all": Budget(usd=1.0), "any": Budget(usd=1.0, unknown_price="allow"), "few": Budget(tokens=5)},
    )
    (found,) = findings.prices(config)
    assert (found.status, found.detail) == (
        CheckStatus.WARNING,
        'not known for slow, fast: the budget "all" refuses requests for them; '
        'set [prices."first/slow"] or unknown_price = "allow"',
    )


def test_models_that_end_soon_are_a_warning_where_they_are_named() -> None:
    config = Config(
        providers={"named": with_models("gpt-5", "gpt-6-luna"), "listing": KEYED, "lasting": with_models("gpt-6-sol")},
        routes={"r": Policy(candidates=("gpt-4o-mini",), judge="lasting/o3")},
    )

    def found(*listed: str) -> list[tuple[str, CheckStatus, str]]:
        catalog = Catalog(lambda: date(2026, 12, 1))
        for name, entry in config.providers.items():
            catalog.add(name, VENDORS[entry.kind], frozenset(RequestType), entry.models)
        catalog.update("listing", [ModelInfo(id=model) for model in listed])
        return [(each.name, each.status, each.detail) for each in findings.lifecycle(config, catalog)]

    assert found("gpt-6-luna", "gpt-4.1", "gpt-3.5-turbo") == [
        ("named", CheckStatus.WARNING, "gpt-5 shuts down on 2026-12-11, in 10 days"),
        ("listing", CheckStatus.OK, "of its list, 1 model deprecated or to be shut down within 90 days: gpt-4.1"),
        ("lasting", CheckStatus.WARNING, "o3 shuts down on 2026-12-11, in 10 days"),
    ]
    assert found("gpt-4o-mini", "gpt-4.1")[1] == (
        "listing",
        CheckStatus.WARNING,
        "gpt-4o-mini shuts down on 2027-01-14, in 44 days",
    )
