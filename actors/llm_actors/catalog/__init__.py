"""The catalog of models, and the resolution of model names."""

from llm_actors.catalog.actor import CatalogActor, CatalogMessage, CatalogRef, Refresh, follow, refresh
from llm_actors.catalog.allowed import Allowed
from llm_actors.catalog.catalog import Catalog
from llm_actors.deployment import Candidate

__all__ = [
    "Allowed",
    "Candidate",
    "Catalog",
    "CatalogActor",
    "CatalogMessage",
    "CatalogRef",
    "Refresh",
    "follow",
    "refresh",
]
