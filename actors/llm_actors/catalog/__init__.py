"""Which models there are, and which of them a name means."""

from llm_actors.catalog.actor import CatalogActor, CatalogMessage, CatalogRef, Refresh, refresh
from llm_actors.catalog.catalog import Candidate, Catalog

__all__ = ["Candidate", "Catalog", "CatalogActor", "CatalogMessage", "CatalogRef", "Refresh", "refresh"]
