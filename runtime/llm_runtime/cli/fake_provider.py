"""``llm-runtime fake-provider``: a scripted provider for tests."""

from __future__ import annotations

import argparse
import signal
import ssl
from collections.abc import Mapping
from pathlib import Path

import trio

from llm_protocol.errors import BadRequestError
from llm_protocol.vendor import UnknownVendorError, VendorTable
from llm_runtime.cli.terminal import print_ready, say
from llm_runtime.config import ConfigError, installed_vendors
from llm_runtime.fake import FakeProvider, ScriptRule, load_script
from llm_runtime.fake.connection import JOURNAL
from llm_runtime.fake.provider import MODELS, fake_model
from llm_runtime.fake.vendors import fakeable
from llm_runtime.server import CannotListenError


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Serve until a signal. Raises `LLMClientError` if it cannot start."""
    vendors = fakeable(installed_vendors())
    fake = FakeProvider(
        *_rules(arguments.script, vendors),
        kind=_kind(arguments.kind, vendors),
        vendors=vendors,
        key=_key(arguments.key_env, environ),
        host=arguments.host,
        port=arguments.port,
        models=(*MODELS, *map(fake_model, arguments.model)),
        tls=_tls(arguments.tls_cert, arguments.tls_key),
    )
    try:
        trio.run(_serve, fake)
    except CannotListenError as exc:
        raise ConfigError(str(exc)) from None
    return 0


async def _serve(fake: FakeProvider) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with fake:
            print_ready(fake.url)
            say(f"llm-runtime: the journal is at {fake.url}{JOURNAL}; base URLs:")
            for kind in fake.vendors:
                say(f"llm-runtime:   {kind:<17} {fake.base_url(kind)}")
            await anext(signals)


def _rules(file: str | None, vendors: VendorTable) -> tuple[ScriptRule, ...]:
    try:
        return load_script(Path(file), vendors) if file else ()
    except BadRequestError as exc:
        raise ConfigError(str(exc)) from None


def _kind(name: str | None, vendors: VendorTable) -> str | None:
    if name is not None and name not in vendors:
        raise ConfigError(f"--kind: {UnknownVendorError(name, vendors)}")
    return name


def _key(variable: str | None, environ: Mapping[str, str]) -> str | None:
    if variable is None:
        return None
    if not environ.get(variable):
        raise ConfigError(f"--key-env: the environment variable {variable} is not set")
    return environ[variable]


def _tls(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    if cert is None:
        if key is not None:
            raise ConfigError("--tls-key needs --tls-cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"--tls-cert {cert}: cannot be used: {exc.strerror or exc}") from None
    return context
