"""The target of a command: this process with its configuration, or a running daemon.

A daemon is called through the same runtime as a vendor: as an OpenAI-compatible provider at the given address.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from llm_actors.orchestrator.attempt_loop import WHOSE_KEY
from llm_protocol.errors import LLMClientError, error_for
from llm_protocol.failures import FailureKind
from llm_protocol.policy import Attempts
from llm_protocol.requests import AUTO
from llm_runtime.cli.daemon_client import hinted
from llm_runtime.cli.setup import configured, daemon
from llm_runtime.cli.terminal import say
from llm_runtime.config import Config, ConfigError, Provider

if TYPE_CHECKING:
    from llm_runtime.cli.conversation import KeptConversation

DAEMON = "daemon"
"""The name under which a running daemon is a provider."""


def target(
    arguments: argparse.Namespace, environ: Mapping[str, str], earlier: KeptConversation | None
) -> tuple[Config, str]:
    """Return the configuration with the provider to use, and the model."""
    running = daemon(arguments.url, arguments.config, environ, arguments.ca_file)
    model = arguments.route or arguments.model or (earlier.model if earlier else AUTO)
    if running is None:
        config = configured(arguments.config, environ, say)
        if arguments.route and arguments.route not in config.routes:
            known = f"known: {', '.join(config.routes)}" if config.routes else "no route is configured"
            raise ConfigError(f"--route: there is no route {arguments.route!r}; {known}")
        return config, model
    kind = "openai_compatible"
    provider = Provider(
        kind=kind, base_url=running.base_url, api_key=running.key, models=(AUTO,), ca_file=running.ca_file
    )
    # The daemon retries; if it is not running, the user should learn that at once.
    return Config(providers={DAEMON: provider}, attempts=Attempts(max=1)), f"{DAEMON}/{model}"


def name_of(model: str) -> str:
    """Return the name that the user gave to the model that `target` returned."""
    return model.removeprefix(f"{DAEMON}/")


def is_daemon(model: str) -> bool:
    """Whether a running daemon serves the model that `target` returned."""
    return model.startswith(f"{DAEMON}/")


def as_said(exc: BaseException, model: str, config: Config) -> BaseException:
    """Return ``exc`` with the daemon's own message, if a daemon serves ``model``; other exceptions are returned
    unchanged. The message does not contain the name `DAEMON`, which the user did not choose.
    """
    if not (is_daemon(model) and isinstance(exc, LLMClientError)):
        return exc
    failure = exc.failure
    said = failure.message.removeprefix(f"{model}: ").removesuffix(f" {WHOSE_KEY}")
    match failure.kind:
        case FailureKind.NETWORK | FailureKind.TLS | FailureKind.TIMEOUT_CONNECT:  # name the address
            said = f"{str(config.providers[DAEMON].base_url).removesuffix('/v1')}: {said}"
        case _:
            pass
    said = hinted(msgspec.structs.replace(failure, message=said))
    return error_for(msgspec.structs.replace(failure, message=said), exc.partial)
