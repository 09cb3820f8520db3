"""The vendors that a configuration may use: those of llm-runtime, of installed packages, and of the program."""

from __future__ import annotations

from collections.abc import Iterable

from llm_protocol.vendor import Vendor, VendorTable
from llm_protocol.vendors import VENDORS
from llm_runtime.config.errors import ConfigError

GROUP = "llm_runtime.vendors"
"""The group of entry points with which a package adds vendors: a `Vendor`, or a list or tuple of them."""


def installed_vendors() -> VendorTable:
    """Return the vendors of llm-runtime and of installed packages. Raises `ConfigError` for an entry point that is not
    a vendor, or whose kind exists already. Blocks: it looks for installed packages, and imports those that add vendors.
    """
    from importlib.metadata import entry_points

    table = VENDORS
    for point in entry_points(group=GROUP):
        where = f"the entry point {point.name!r} ({point.value}) in {GROUP}"
        try:
            offered = point.load()
        except Exception as exc:  # importing a package may raise anything
            raise ConfigError(f"{where} cannot be loaded: {type(exc).__name__}: {exc}") from exc
        vendors = [offered] if isinstance(offered, Vendor) else offered
        if not isinstance(vendors, list | tuple) or not all(isinstance(each, Vendor) for each in vendors):
            raise ConfigError(f"{where} is neither an llm_protocol.vendor.Vendor nor a list of them")
        table = with_vendors(table, vendors, where)
    return table


def with_vendors(table: VendorTable, vendors: Iterable[Vendor], where: str = "vendors") -> VendorTable:
    """Return ``table`` with ``vendors`` added. ``where`` is their origin, for the `ConfigError` if a kind exists
    already.
    """
    added = tuple(vendors)
    try:
        return table.plus(added)
    except ValueError as exc:
        raise ConfigError(f"{where}: {exc}{_other(table, added)}") from None


def _other(table: VendorTable, added: tuple[Vendor, ...]) -> str:
    """Return the end of an error message that says who defined the vendor whose kind is also in ``added``; empty if
    there is no such vendor.
    """
    taken = next((each.kind for each in added if table.get(each.kind, each) is not each), None)
    if taken is None:
        return ""
    return "; llm-runtime has the other" if taken in VENDORS else f"; an installed package has the other ({GROUP})"
