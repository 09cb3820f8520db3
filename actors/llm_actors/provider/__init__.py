"""Provider actors: one per provider, and the only code that calls its vendor."""

from llm_actors.deployment import AttemptResult
from llm_actors.provider.actor import ProviderActor
from llm_actors.provider.call import adapted_to
from llm_actors.provider.failures import failure_of
from llm_actors.provider.messages import (
    Generate,
    Prepared,
    ProviderMessage,
    ProviderRef,
    Sink,
    count_tokens,
    list_models,
    send_passthrough,
)
from llm_actors.provider.passthrough import ClientGone, PassthroughRequest, PassthroughResponse, ResponseSink
from llm_actors.provider.renewal import KeyRenewer
from llm_actors.provider.spec import AuthHeader, Endpoint, ProviderSpec, ProviderWires, wires_of

__all__ = [
    "AttemptResult",
    "AuthHeader",
    "ClientGone",
    "Endpoint",
    "Generate",
    "KeyRenewer",
    "PassthroughRequest",
    "PassthroughResponse",
    "Prepared",
    "ProviderActor",
    "ProviderMessage",
    "ProviderRef",
    "ProviderSpec",
    "ProviderWires",
    "ResponseSink",
    "Sink",
    "adapted_to",
    "count_tokens",
    "failure_of",
    "list_models",
    "send_passthrough",
    "wires_of",
]
