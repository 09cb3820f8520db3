"""Build the `Config` for a command from its arguments and the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from llm_protocol.secret import Secret
from llm_protocol.vendor import VendorTable
from llm_runtime.config import Config, ConfigError, discover, installed_vendors, load
from llm_runtime.config.keys import checked_key
from llm_runtime.config.providers import checked_url

CHECKOUT = "LLM_RUNTIME_CHECKOUT"
"""An environment variable that ``bin/llm-runtime`` sets. It means that the Python environment belongs to the checkout,
so missing packages may be installed into it.
"""

NOTHING = (
    "there is no provider: set a key such as OPENAI_API_KEY, start Ollama, give a configuration with --config, or "
    "install the local model with: llm-runtime model install"
)

Change: TypeAlias = Callable[[Config], Config]


def configured(
    file: str | None,
    environ: Mapping[str, str],
    print_line: Callable[[str], None],
    change: Change = lambda config: config,
    *,
    install: bool = True,
    copy: str | None = None,
) -> Config:
    """Return the configuration of ``file``, or the discovered one, after ``change``, which may raise `ConfigError`.
    ``copy``: a copy of the file to read in its place. Blocks.

    In a checkout, the local model is installed if it is needed and missing (without ``install``, it counts as
    installed). Elsewhere, a missing local model raises `ConfigError`. If every provider is disabled, `ConfigError` is
    always raised.
    """
    from llm_runtime.local_model import is_installed

    local, vendors = is_installed(), installed_vendors()
    config = change(_read(file, environ, vendors, local=local, copy=copy))
    if not local and _needs_local_model(config):
        if CHECKOUT not in environ:
            raise ConfigError(NOTHING)
        if install:
            _install(print_line)
        config = change(_read(file, environ, vendors, local=True, copy=copy))
    if not config.enabled:
        raise ConfigError("every provider is disabled: set enabled = true in one of them", file=file or "")
    return config


class Daemon(NamedTuple):
    """A running daemon that a command uses: its address, which ends in ``/v1``; the key for it; and ``ca_file``, the
    file with the certificates to trust (``None``: those of the system).
    """

    base_url: str
    key: Secret | None
    ca_file: str | None = None


def daemon(url: str | None, file: str | None, environ: Mapping[str, str], ca_file: str | None = None) -> Daemon | None:
    """Return the daemon of ``--url`` or, without ``--config``, of LLM_RUNTIME_URL. ``None``: this process serves the
    request. ``ca_file`` is the value of ``--ca-file``; the default is LLM_RUNTIME_CA_FILE.

    Raises `ConfigError` for an invalid address or key, and for ``--url`` together with ``--config``.
    """
    if url and file:
        raise ConfigError(
            "--config runs the request in this process, --url sends it to a daemon: give only one of them"
        )
    url = url or environ.get("LLM_RUNTIME_URL")
    if not url or file:
        if ca_file:
            raise ConfigError("--ca-file applies only to a daemon: add --url, or set LLM_RUNTIME_URL")
        return None
    trusted = ca_file or environ.get("LLM_RUNTIME_CA_FILE")
    try:
        key = checked_key(environ["LLM_RUNTIME_KEY"], "LLM_RUNTIME_KEY") if environ.get("LLM_RUNTIME_KEY") else None
        return Daemon(checked_url(url).removesuffix("/v1") + "/v1", key, os.path.abspath(trusted) if trusted else None)
    except ConfigError:
        raise ConfigError(
            "the daemon's URL (--url or LLM_RUNTIME_URL) is not an address like http://127.0.0.1:8080"
        ) from None
    except ValueError as exc:
        raise ConfigError(str(exc)) from None


def _read(
    file: str | None, environ: Mapping[str, str], vendors: VendorTable, *, local: bool, copy: str | None
) -> Config:
    if file:
        return load(file, environ, local=local, vendors=vendors, copy=copy)
    return discover(environ, local=local, loopback=True, vendors=vendors)


def _needs_local_model(config: Config) -> bool:
    return not config.providers or any(config.vendors[each.kind].local for each in config.enabled.values())


def _install(print_line: Callable[[str], None]) -> None:
    from llm_runtime.local_model.install import InstallError, install

    print_line("llm-runtime: installing the local model, once (about 130 MB)")
    try:
        install()
    except InstallError as exc:
        advice = "To use a vendor instead of the local model, set a key such as OPENAI_API_KEY"
        raise ConfigError(f"{exc}. {advice}") from exc
