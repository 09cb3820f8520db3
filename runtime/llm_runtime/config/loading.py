"""Reads a configuration file."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from llm_actors.redis import RedisServer
from llm_protocol.budgets import Budget
from llm_protocol.codec.wording import suggestion
from llm_protocol.model_facts import Capabilities
from llm_protocol.passthrough import PassthroughRule
from llm_protocol.policy import NO_OWN_NAMES, Attempts, CachePolicy, OwnNames, Policy, Timeouts
from llm_protocol.prices import OwnPrice
from llm_protocol.secret import Secret
from llm_protocol.vendor import VendorTable
from llm_protocol.vendors import VENDORS
from llm_runtime.config.conversion import convert, refuse_unknown
from llm_runtime.config.cross_checks import (
    check_budgets,
    check_names,
    check_request_log,
    check_shared,
    check_workers,
    kept_in_memory,
)
from llm_runtime.config.discovery import discover
from llm_runtime.config.errors import ConfigError, Mistakes, line_of, run_checks, together, under
from llm_runtime.config.exposure import check_exposure
from llm_runtime.config.keys import KeyReader, split_reference
from llm_runtime.config.model import Config, CrossModel, Key, Provider, Selection
from llm_runtime.config.notes import certificate_notes, expired_keys, short_secrets, unencrypted_keys
from llm_runtime.config.otel import OtelConfig, otel_section
from llm_runtime.config.providers import check_cache, check_kind, completed
from llm_runtime.config.proxies import with_proxies
from llm_runtime.config.redis import redis_server
from llm_runtime.config.request_log import RequestLogConfig, request_log_section
from llm_runtime.config.server import Server, ServerTls
from llm_runtime.config.store import StoreConfig, store_section

MAX_FILE_BYTES = 1024 * 1024

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""The form of names of providers and keys, which occur in model names, logs and metrics."""

NAME_RULE = "a name is 1 to 64 letters, digits, - _ or ., the first a letter or digit"

_TUPLE, _PART = re.compile(r"\(('[^']*',? ?)+\)"), re.compile(r"'([^']*)'")
"""The notation of a table's name in a message of `tomllib`: ``('server', 'tls')``."""

_POSITION = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """The sections that a file may have. Their contents are converted entry by entry."""

    server: object = {}
    timeouts: object = {}
    attempts: object = {}
    selection: object = {}
    cross_model: object = {}
    cache: object = {}
    redis: object = {}
    store: object = {}
    request_log: object = {}
    otel: object = {}
    keys: object = {}
    providers: object = {}
    routes: object = {}
    prices: object = {}
    budgets: object = {}


def load(
    file: str | os.PathLike[str],
    environ: Mapping[str, str],
    *,
    local: bool = False,
    vendors: VendorTable = VENDORS,
    own: OwnNames = NO_OWN_NAMES,
    copy: str | None = None,
) -> Config:
    """Read the TOML ``file``; with ``copy``, read that copy of it instead. If it has no provider, the providers are
    those that `discover` finds in ``environ`` and, with ``local``, the local model. ``own``: the strategies and
    orderings that the program adds. Raises `ConfigError`. Does blocking file I/O.
    """
    path = Path(file)
    try:
        with Path(copy or file).open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not a path"
        raise ConfigError(f"cannot read the configuration: {reason}", file=str(file)) from None
    folder = path.absolute().parent
    return parse(content, environ, file=str(file), folder=folder, local=local, vendors=vendors, own=own)


def parse(
    content: bytes,
    environ: Mapping[str, str],
    *,
    file: str = "config.toml",
    folder: Path | None = None,
    local: bool = False,
    vendors: VendorTable = VENDORS,
    own: OwnNames = NO_OWN_NAMES,
) -> Config:
    """Return the configuration in ``content``; see `load`. Relative paths start at ``folder``."""
    source = _decoded(content, file)
    keys = KeyReader(environ, folder or Path())
    try:
        table = _table(source)
        config = from_table(table, keys, folder or Path(), file, vendors)
        config = with_proxies(config, environ) if config.providers else _with_discovered(config, environ, local)
        config = msgspec.structs.replace(
            config,
            store=_store(table, keys, folder or Path(), environ),
            request_log=_request_log(table, keys, folder or Path(), environ),
            otel=_otel(table, keys),
        )
        run_checks(
            partial(check_budgets, config),
            partial(check_request_log, config),
            partial(check_names, config, own),
            partial(check_exposure, config),
            partial(check_workers, config),
            partial(check_shared, config),
        )
    except ConfigError as exc:
        found = [
            ConfigError(each.message, *each.path, file=file, line=each.line or _line(source, each.path))
            for each in exc.all
        ]
        raise together(sorted(found, key=lambda each: each.line or 0)) from None
    except RecursionError:
        raise ConfigError("the configuration is nested too deeply", file=file, line=1) from None
    return msgspec.structs.replace(config, notes=(*config.notes, *kept_in_memory(config), *keys.warnings))


def _decoded(content: bytes, file: str) -> str:
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"the configuration is larger than {MAX_FILE_BYTES} bytes", file=file, line=1)
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")  # some editors write a byte order mark
    except UnicodeDecodeError as exc:
        raise ConfigError(
            "the configuration is not UTF-8", file=file, line=content.count(b"\n", 0, exc.start) + 1
        ) from None


def _table(source: str) -> dict[str, Any]:
    import tomllib  # imported here and in `lines`: without a file, it is not needed

    try:
        return tomllib.loads(source)
    except ValueError as exc:  # TOMLDecodeError, or the error of int() for a number with too many digits
        position = _POSITION.search(str(exc))
        line = (position and position["line"]) or source.count("\n") + 1
        message = "a number is too long"
        if isinstance(exc, tomllib.TOMLDecodeError):
            message = _TUPLE.sub(lambda found: ".".join(_PART.findall(found[0])), _POSITION.sub("", str(exc)))
        raise ConfigError(f"not TOML: {message}", line=int(line)) from None


def _line(source: str, path: Sequence[str]) -> int:
    """Return the line of the entry, or of the closest table around it, because a missing entry has no line."""
    tables = [part for part in path if not part.startswith("[")]
    for length in range(len(tables), 0, -1):
        if line := line_of(source, tables[:length]):
            return line
    return 1


def from_table(table: dict[str, Any], keys: KeyReader, folder: Path, file: str, vendors: VendorTable) -> Config:
    """Return the configuration in a parsed file. Raises `ConfigError` with paths of entries, but without lines."""
    mistakes = Mistakes()
    with mistakes.under():
        refuse_unknown(table, _File)
    sections: dict[str, Any] = {}
    for name, section in _SECTIONS.items():
        with mistakes.under(name):
            sections[name] = convert(table.get(name, {}), section, keys.read)
    notes: list[str] = []
    if isinstance(server := sections.get("server"), Server):
        with mistakes.under("server"):
            sections["server"] = _placed(server, folder)
        with mistakes.under("server", "tls"):
            notes += certificate_notes(sections["server"].tls)
    timeouts = table.get("timeouts", {}) if "timeouts" in sections else {}
    providers: dict[str, Provider] = {}
    for name, entry in _named(table, "providers", mistakes):
        with mistakes.under("providers", name):
            providers[name] = _provider(entry, timeouts, keys, folder, vendors)
    there = table.get("providers", {})
    there = there if isinstance(there, dict) else {}
    callers = _callers(table, keys, there, mistakes)
    with mistakes.under():
        sections["redis"] = _redis(table, keys)
    routes: dict[str, Policy] = {}
    for name, entry in _named(table, "routes", mistakes):
        with mistakes.under("routes", name):
            routes[name] = convert(entry, Policy, keys.read)
    budgets: dict[str, Budget] = {}
    for name, entry in _named(table, "budgets", mistakes):
        with mistakes.under("budgets", name):
            budgets[name] = convert(entry, Budget, keys.read)
    prices = _prices(table.get("prices", {}), there, mistakes)
    mistakes.raise_any()
    return Config(
        **sections,
        keys=callers,
        providers=providers,
        routes=routes,
        budgets=budgets,
        prices=prices,
        vendors=vendors,
        reasons=dict.fromkeys(providers, f"configured in {file}"),
        notes=(*notes, *unencrypted_keys(providers), *expired_keys(callers), *short_secrets(callers)),
    )


def _placed(server: Server, folder: Path) -> Server:
    """Return the server with absolute paths."""

    def placed(path: str | None) -> str | None:
        return None if path is None else str(folder / os.path.expanduser(path))

    tls = server.tls
    if tls is not None:
        certificate = placed(tls.certificate) or tls.certificate
        tls = ServerTls(certificate=certificate, key=placed(tls.key), client_ca=placed(tls.client_ca))
    return msgspec.structs.replace(server, tls=tls, unix=placed(server.unix))


def _redis(table: dict[str, Any], keys: KeyReader) -> RedisServer | None:
    if "redis" not in table:
        return None
    with under("redis"):
        return redis_server(table["redis"], keys)


def _store(table: dict[str, Any], keys: KeyReader, folder: Path, environ: Mapping[str, str]) -> StoreConfig | None:
    if "store" not in table:
        return None
    with under("store"):
        return store_section(table["store"], keys, folder, environ)


def _request_log(
    table: dict[str, Any], keys: KeyReader, folder: Path, environ: Mapping[str, str]
) -> RequestLogConfig | None:
    if "request_log" not in table:
        return None
    with under("request_log"):
        return request_log_section(table["request_log"], keys, folder, environ)


def _otel(table: dict[str, Any], keys: KeyReader) -> OtelConfig | None:
    if "otel" not in table:
        return None
    with under("otel"):
        return otel_section(table["otel"], keys)


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "server": Server,
    "timeouts": Timeouts,
    "attempts": Attempts,
    "selection": Selection,
    "cross_model": CrossModel,
    "cache": CachePolicy,
}


def _prices(entries: object, providers: Mapping[str, object], mistakes: Mistakes) -> dict[str, OwnPrice]:
    prices: dict[str, OwnPrice] = {}
    if not isinstance(entries, dict):
        with mistakes.under("prices"):
            raise ConfigError('expected tables [prices."PROVIDER/MODEL"]')
        return prices
    for name, entry in entries.items():
        with mistakes.under("prices", name):
            provider, slash, model = name.partition("/")
            if not slash or not model:
                raise ConfigError('write a price as [prices."PROVIDER/MODEL"]; MODEL may be a glob')
            _check_provider(provider, providers)
            prices[name] = convert(entry, OwnPrice, _unread)
    return prices


def _check_provider(name: str, providers: Collection[str], field: str = "") -> None:
    if name not in providers:
        there = suggestion(name, providers) or f"; known providers: {', '.join(providers) or 'none'}"
        raise ConfigError(f'there is no provider "{name}"{there}', *filter(None, (field,)))


def _named(table: dict[str, Any], section: str, mistakes: Mistakes) -> Iterator[tuple[str, object]]:
    """Iterate over the entries of ``[section.NAME]`` with valid names."""
    entries = table.get(section, {})
    if not isinstance(entries, dict):
        with mistakes.under(section):
            raise ConfigError(f"expected tables [{section}.NAME]")
        return
    for name, entry in entries.items():
        if NAME.fullmatch(name):
            yield name, entry
            continue
        with mistakes.under(section, name):
            raise ConfigError(NAME_RULE)


def _callers(table: dict[str, Any], keys: KeyReader, providers: Collection[str], mistakes: Mistakes) -> dict[str, Key]:
    callers: dict[str, Key] = {}
    owners: dict[Secret, str] = {}
    for name, entry in _named(table, "keys", mistakes):
        with mistakes.under("keys", name):
            key = callers[name] = convert(entry, Key, keys.read)
            if (owner := owners.setdefault(key.secret, name)) != name:
                raise ConfigError(f'the same key as "{owner}": each caller needs its own key', "secret")
            for entry in key.passthrough if providers else ():  # else they are discovered later
                _check_provider(PassthroughRule.parse(entry).provider, providers, "passthrough")
    return callers


def _provider(entry: object, timeouts: dict[str, Any], keys: KeyReader, folder: Path, vendors: VendorTable) -> Provider:
    if not isinstance(entry, dict):
        raise ConfigError("expected a table")
    mistakes = Mistakes()
    with mistakes.under():
        check_cache(entry)
    merged = {**entry, "timeouts": _over(timeouts, entry, "timeouts")}
    with mistakes.under("capabilities"):
        _check_capabilities(merged.pop("capabilities", {}))
        merged = {**merged, "capabilities": entry.get("capabilities", {})}
    # The key of a disabled provider is not read: the variable need not be set.
    read = keys.read_provider if entry.get("enabled") is not False else _unread
    provider: Provider | None = None
    with mistakes.under():
        provider = convert(merged, Provider, read)
    if provider is None and isinstance(kind := entry.get("kind"), str):
        with mistakes.under("kind"):
            check_kind(kind, vendors)
    mistakes.raise_any()
    assert provider is not None
    if read is _unread:
        provider = msgspec.structs.replace(provider, api_key=None, proxy_auth=None)
    return completed(provider, folder, vendors)


def _check_capabilities(entry: object) -> None:
    """Check the entries one by one, so that the message names the pattern."""
    if not isinstance(entry, dict):
        raise ConfigError('expected tables [providers.NAME.capabilities."MODEL"], where MODEL is a name or a glob')
    for glob, facts in entry.items():
        with under(glob):
            convert(facts, Capabilities, _unread)


def _unread(reference: object) -> Secret:
    split_reference(reference, ("env", "file", "cmd"))
    return Secret("")


def _over(defaults: dict[str, Any], entry: dict[str, Any], section: str) -> object:
    own = entry.get(section, {})
    return {**defaults, **own} if isinstance(own, dict) else own


def _with_discovered(config: Config, environ: Mapping[str, str], local: bool) -> Config:
    found = discover(environ, local=local, timeouts=config.timeouts, vendors=config.vendors)
    return msgspec.structs.replace(
        config, providers=found.providers, reasons=found.reasons, notes=(*config.notes, *found.notes)
    )
