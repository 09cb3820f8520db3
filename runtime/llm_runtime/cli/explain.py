"""``llm-runtime explain MODEL``: which providers would be tried for a model, in order, and why.

A daemon uses its measurements; without one, only the configuration and the prices are known.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from urllib.parse import quote

import msgspec
import trio

from llm_actors.transport import Transport, TransportError
from llm_protocol.dialect import WireRequest
from llm_protocol.errors import LLMClientError, NetworkError
from llm_protocol.failures import Failure, FailureKind
from llm_runtime.cli.logs import start_logging
from llm_runtime.cli.setup import WRONG_KEY, Daemon, configured, daemon
from llm_runtime.cli.terminal import leaf, print_out, say
from llm_runtime.config import Provider
from llm_runtime.providers import provider_spec
from llm_runtime.runtime import open_runtime

ANSWER_SECONDS = 15.0
"""How long a daemon may take to respond."""


class _Explanation(msgspec.Struct):
    lines: list[str]


class _Problem(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    error: _Problem


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Explain, and return the exit code. Raises `LLMClientError` or `ConfigError`."""
    start_logging(arguments.log_level, arguments.log_format)
    running = daemon(arguments.url, arguments.config, environ)
    try:
        if running is not None:
            lines = trio.run(_asked, running, arguments.model)
        else:
            lines = trio.run(_here, arguments, environ)
    except BaseExceptionGroup as group:
        raise leaf(group) from None
    for line in lines:
        print_out(line)
    return 0


async def _here(arguments: argparse.Namespace, environ: Mapping[str, str]) -> list[str]:
    async with open_runtime(configured(arguments.config, environ, say)) as rt:
        return (await rt.explain(arguments.model)).lines()


async def _asked(running: Daemon, model: str) -> list[str]:
    provider = Provider(kind="openai_compatible", base_url=running.base_url, api_key=running.key)
    wire = WireRequest("GET", f"/runtime/explain?model={quote(model, safe='')}")
    request = provider_spec("daemon", provider).http_request(wire)
    transport = Transport()
    try:
        with trio.fail_after(ANSWER_SECONDS):
            async with transport.send(request) as response:
                body = await response.read()
                if response.status == 200:
                    return msgspec.json.decode(body, type=_Explanation).lines
                said = msgspec.json.decode(body, type=_Refusal).error.message
                raise LLMClientError(said + WRONG_KEY if response.status == 401 else said)
    except (TransportError, trio.TooSlowError, msgspec.DecodeError) as exc:
        text = str(exc) or f"{request.origin} does not answer"
        raise NetworkError(Failure(kind=FailureKind.NETWORK, message=text)) from exc
    finally:
        await transport.aclose()
