"""Checks a configuration: tries everything that it names at the same time, each within a time limit.

A provider is called as the runtime calls it: by a provider actor under a supervisor, with the same key, certificates
and timeouts. Only its configured models are ignored, so that the vendor's list is requested.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

import msgspec
import trio

from llm_actors.kernel import KernelError, Supervisor, running
from llm_actors.provider import ProviderSpec, failure_of, list_models
from llm_protocol.dialect import ModelInfo
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure, FailureKind
from llm_runtime.config import Config
from llm_runtime.probes import findings, places, routes
from llm_runtime.probes.findings import Listing
from llm_runtime.probes.report import Check, CheckStatus
from llm_runtime.providers import Supervised, provider_spec, supervised
from llm_runtime.tree import Tree

CHECK_SECONDS: Final = 15.0
"""The most seconds for one check. The timeouts of a provider may be shorter."""

Attempt: TypeAlias = Callable[[], Awaitable[places.Finding]]


async def check(config: Config, source: str, *, offline: bool = False) -> list[Check]:
    """Check all of ``config``, which was read from ``source``. Takes little more than `CHECK_SECONDS`.

    With ``offline``, nothing is called: only the configuration itself is checked. Cancelling this leaves nothing
    behind.
    """
    specs = [provider_spec(name, provider, config.vendors) for name, provider in config.enabled.items()]
    done = list(findings.configuration(config, source))
    listings: dict[str, Listing] = {}
    if not offline:
        tried, listings = await _try_all(config, specs)
        done += tried
        done += [
            findings.provider(spec.name, config.providers[spec.name], spec.vendor, listings[spec.name], _url(spec))
            for spec in specs
            if spec.name in listings
        ]
    failed = {each.name for each in done if each.what == findings.PROVIDER and each.status is CheckStatus.FAILED}
    known = _known(config, specs, listings)._replace(failed=failed, offline=offline)
    done += findings.prices(config)
    done += findings.lifecycle(config, known.catalog)
    done += [routes.route(name, policy, known) for name, policy in config.routes.items()]
    return done


def _known(config: Config, specs: Sequence[ProviderSpec], listings: dict[str, Listing]) -> routes.Known:
    """Return a catalog and a router as the runtime has them, with the vendors' lists."""
    tree = Tree(config, [supervised(each) for each in specs], lambda _provider, _model, _usage: None)
    lists = {name: listing.found for name, listing in listings.items() if not isinstance(listing.found, Failure)}
    for name in tree.services.catalog.unlisted:
        if name in lists:
            tree.services.catalog.update(name, lists[name])
    return routes.Known(
        tree.services.catalog, tree.setup.router, {name: [each.id for each in found] for name, found in lists.items()}
    )


async def _try_all(config: Config, specs: Sequence[ProviderSpec]) -> tuple[list[Check], dict[str, Listing]]:
    tries = _tries(config)
    listed = {each.name: _supervised(each) for each in specs if not each.vendor.local}
    checks: dict[tuple[str, str], Check] = {}
    listings: dict[str, Listing] = {}

    async def try_place(what: str, name: str, attempt: Attempt) -> None:
        checks[what, name] = await _tried(what, name, attempt)

    async def ask(name: str, each: Supervised) -> None:
        listings[name] = await _list_models(each)

    root = Supervisor([each.supervisor.as_child() for each in listed.values()], name="checked")
    async with running(root), trio.open_nursery() as nursery:
        for one in tries:
            nursery.start_soon(try_place, *one)
        for name, each in listed.items():
            nursery.start_soon(ask, name, each)
    return [checks[what, name] for what, name, _ in tries], {name: listings[name] for name in listed}


def _tries(config: Config) -> list[tuple[str, str, Attempt]]:
    """Return the checks of everything besides providers: each has a kind, a name, and a function."""
    server, path = config.server, config.cache.path
    tries: list[tuple[str, str, Attempt]] = [
        ("address", server.unix or f"{server.host}:{server.port}", partial(places.try_address, server))
    ]
    if config.cached and path is not None:
        tries.append(("cache", path, partial(places.try_file, path)))
    if config.store is not None:
        tries.append(("store", config.store.path, partial(places.try_file, config.store.path)))
    if config.request_log is not None:
        tries.append(("request log", config.request_log.path, partial(places.try_folder, config.request_log.path)))
    if config.redis is not None:
        import coredis  # noqa: F401 - imported here, so that the import does not count towards a check's time limit

        tries.append(("redis", config.redis.name, partial(places.try_redis, config.redis)))
    local = [name for name, provider in config.enabled.items() if config.vendors[provider.kind].local]
    return [*tries, *(("local model", name, places.try_local_model) for name in local)]


async def _tried(what: str, name: str, attempt: Attempt) -> Check:
    begun = trio.current_time()
    finding = CheckStatus.FAILED, f"no response within {CHECK_SECONDS:g} s"
    with trio.move_on_after(CHECK_SECONDS):
        finding = await attempt()
    return Check(what, name, *finding, _since(begun))


def _url(spec: ProviderSpec) -> str:
    return spec.url_of(spec.dialect.models_request(None).path)


def _supervised(spec: ProviderSpec) -> Supervised:
    return supervised(msgspec.structs.replace(spec, models=()))


async def _list_models(each: Supervised) -> Listing:
    """Return the vendor's list, or why it is not available."""
    begun = trio.current_time()
    spec = each.spec
    seconds = min(CHECK_SECONDS, spec.timeouts.total)
    message = f"no complete list of models within {seconds:g} s"
    found: Sequence[ModelInfo] | Failure = Failure(kind=FailureKind.TIMEOUT_TOTAL, message=message)
    with trio.move_on_after(seconds):
        try:
            found = await list_models(each.ref)
        except LLMClientError as exc:
            found = exc.failure
        except KernelError as exc:
            found = failure_of(exc, spec.name)
    return Listing(found, _since(begun))


def _since(begun: float) -> float:
    return round(trio.current_time() - begun, 3)
