"""Provider actors: one per configured deployment, each the only one that talks to its vendor."""

from llm_actors.provider.actor import ProviderActor
from llm_actors.provider.deployment import DEFAULT_CONCURRENCY, Deployment, Endpoint
from llm_actors.provider.failing import failure_of
from llm_actors.provider.messages import Outcome, ProviderMessage, ProviderRef, Sink, generate, list_models

__all__ = [
    "DEFAULT_CONCURRENCY",
    "Deployment",
    "Endpoint",
    "Outcome",
    "ProviderActor",
    "ProviderMessage",
    "ProviderRef",
    "Sink",
    "failure_of",
    "generate",
    "list_models",
]
