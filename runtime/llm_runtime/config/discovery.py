"""The configuration nobody wrote: providers whose usual key is in the environment, and the local model."""

from __future__ import annotations

from collections.abc import Mapping

from llm_protocol.policy import Timeouts
from llm_protocol.vendor import VendorTable
from llm_protocol.vendors import LOCAL_MODEL, VENDORS
from llm_runtime.config.keys import checked
from llm_runtime.config.model import Config, Provider


def discover(
    environ: Mapping[str, str],
    *,
    local: bool = False,
    timeouts: Timeouts | None = None,
    vendors: VendorTable = VENDORS,
) -> Config:
    """A provider, named like its kind, for each vendor whose key is set; with ``local`` also the local model.

    ``reasons`` says why each is there; ``notes`` names keys that were seen and passed over. Never raises.
    """
    timeouts = timeouts or Timeouts()
    providers: dict[str, Provider] = {}
    reasons: dict[str, str] = {}
    notes: list[str] = []
    for kind, vendor in vendors.items():
        variable = next((each for each in vendor.key_variables if environ.get(each, "").strip()), None)
        if variable is None or vendor.base_url is None:
            continue
        try:
            key = checked(environ[variable], variable)
        except ValueError as exc:
            notes.append(f"{exc}: passed over")
            continue
        providers[kind] = Provider(kind=kind, base_url=vendor.base_url, api_key=key, timeouts=timeouts)
        reasons[kind] = f"{variable} is set"
    if local:
        providers["local"] = Provider(kind="local", models=(LOCAL_MODEL,), timeouts=timeouts)
        reasons["local"] = "the local model is installed"
    return Config(timeouts=timeouts, providers=providers, vendors=vendors, reasons=reasons, notes=tuple(notes))
