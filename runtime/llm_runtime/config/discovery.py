"""The configuration without a file: a provider for each vendor whose key variable is set, and the local model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from llm_protocol.policy import Timeouts
from llm_protocol.vendor import Vendor, VendorTable
from llm_protocol.vendors import LOCAL_MODEL, VENDORS
from llm_runtime.config.errors import ConfigError
from llm_runtime.config.exposure import is_loopback
from llm_runtime.config.keys import checked_key
from llm_runtime.config.model import Config, Provider
from llm_runtime.config.providers import completed
from llm_runtime.config.proxies import with_proxies

LOOPBACK_SECONDS: Final = 0.5
"""Seconds to wait for the connection to a server on this machine, and for each read from it."""


def discover(
    environ: Mapping[str, str],
    *,
    local: bool = False,
    loopback: bool = False,
    timeouts: Timeouts | None = None,
    vendors: VendorTable = VENDORS,
) -> Config:
    """Return a configuration with a provider, named like its kind, for each vendor whose key is set. With ``local``, it
    also contains the local model.

    With ``loopback``, and if no key is set, this looks for model servers on this machine, such as Ollama, and blocks
    meanwhile: at most `LOOPBACK_SECONDS` for each step of a request to such a server. A server that is found replaces
    the local model. In the result, ``reasons`` says why each provider is there, and ``notes`` says which keys were
    ignored. Never raises.
    """
    timeouts = timeouts or Timeouts()
    providers: dict[str, Provider] = {}
    reasons: dict[str, str] = {}
    notes: list[str] = []
    for kind, vendor in vendors.items():
        variable = next((each for each in vendor.key_variables if environ.get(each, "").strip()), None)
        address = next((each for each in vendor.url_variables if environ.get(each, "").strip()), None)
        if variable is None or (vendor.base_url is None and address is None):
            continue
        try:
            key = checked_key(environ[variable], variable)
            entry = Provider(kind=kind, api_key=key, timeouts=timeouts, **_of_account(vendor, environ))
            if address is not None:
                entry = msgspec.structs.replace(entry, base_url=environ[address].strip())
            providers[kind] = completed(entry, Path(), vendors)
        except (ValueError, ConfigError) as exc:
            what = f"{address}: {exc.message}" if isinstance(exc, ConfigError) else str(exc)
            notes.append(f"{what}: ignored")
            continue
        reasons[kind] = f"{variable} is set" + (f", with the address in {address}" if address else "")
    for kind, vendor in vendors.items() if loopback and not providers else ():
        if vendor.found_on_loopback and vendor.base_url is not None and _answers(vendor.base_url):
            providers[kind] = completed(Provider(kind=kind, timeouts=timeouts), Path(), vendors)
            reasons[kind] = f"responds at {vendor.base_url}"
            local = False
    if local:
        providers["local"] = Provider(kind="local", models=(LOCAL_MODEL,), timeouts=timeouts)
        reasons["local"] = "the local model is installed"
    found = Config(timeouts=timeouts, providers=providers, vendors=vendors, reasons=reasons, notes=tuple(notes))
    return with_proxies(found, environ)


def _answers(base_url: str) -> bool:
    """Return whether a server lists models at ``base_url``. Blocks for at most `LOOPBACK_SECONDS` to connect and for
    each read.
    """
    from http.client import HTTPConnection, HTTPException

    parts = urlsplit(base_url)
    if not is_loopback(parts.hostname or ""):
        return False
    connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=LOOPBACK_SECONDS)
    try:
        connection.request("GET", f"{parts.path}/models", headers={"Connection": "close"})
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _of_account(vendor: Vendor, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the organization and project from the variables that the vendor's SDK reads."""
    found = {part: environ.get(header.variable or "", "").strip() for part, header in vendor.account_headers.items()}
    return {part: value for part, value in found.items() if value}
