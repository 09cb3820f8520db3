"""From arguments and environment to a `Config` that something can be started with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from llm_protocol.requests import LLMProvider
from llm_runtime.config import Config, ConfigError, discover, load

CHECKOUT = "LLM_RUNTIME_CHECKOUT"
"""Set by ``bin/llm-runtime``: the environment is ours, and what is missing may be installed into it."""

NOTHING = (
    "there is no provider: set a key such as OPENAI_API_KEY, name a configuration with --config, or install the local "
    "model with: llm-runtime model install"
)


Change: TypeAlias = Callable[[Config], Config]


def configured(
    file: str | None, environ: Mapping[str, str], say: Callable[[str], None], change: Change = lambda config: config
) -> Config:
    """The configuration of ``file``, or the discovered one, after ``change``, which may refuse it. Blocks.

    From a checkout the local model is installed when it is needed and missing; elsewhere that is a `ConfigError`, as
    is having no provider at all.
    """
    from llm_runtime.local_model import is_installed

    local = is_installed()
    config = change(_read(file, environ, local=local))
    if not local and _needs_local_model(config):
        _install(environ, say)
        config = change(_read(file, environ, local=True))
    if not config.enabled:
        raise ConfigError("every provider is disabled", file=file or "")
    return config


def _read(file: str | None, environ: Mapping[str, str], *, local: bool) -> Config:
    return load(file, environ, local=local) if file else discover(environ, local=local)


def _needs_local_model(config: Config) -> bool:
    return not config.providers or any(each.kind is LLMProvider.LOCAL for each in config.enabled.values())


def _install(environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    if CHECKOUT not in environ:
        raise ConfigError(NOTHING)
    from llm_runtime.local_model.install import InstallError, install

    say("llm-runtime: no key in sight: installing the local model, once (about 130 MB)")
    try:
        install()
    except InstallError as exc:
        raise ConfigError(f"{exc}; or set a key such as OPENAI_API_KEY") from exc
