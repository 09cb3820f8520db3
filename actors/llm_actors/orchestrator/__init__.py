"""The orchestrator: the owner of every run and of every attempt."""

from llm_actors.orchestrator.actor import Accept, Orchestrator, OrchestratorMessage, OrchestratorRef, accept
from llm_actors.orchestrator.attempt_events import AttemptEnded, AttemptStarted
from llm_actors.orchestrator.candidates import gives_choices, ranked
from llm_actors.orchestrator.load import ProviderLoad
from llm_actors.orchestrator.metrics import Histogram, Metrics
from llm_actors.orchestrator.passthrough import pass_through
from llm_actors.orchestrator.recent_requests import RecentCall, RecentRequest
from llm_actors.orchestrator.routing import ResolvedRoute, Router, Setup
from llm_actors.orchestrator.services import Services
from llm_actors.orchestrator.strategies.team import StrategyFunction, Team

__all__ = [
    "Accept",
    "AttemptEnded",
    "AttemptStarted",
    "Histogram",
    "Metrics",
    "Orchestrator",
    "OrchestratorMessage",
    "OrchestratorRef",
    "ProviderLoad",
    "RecentCall",
    "RecentRequest",
    "ResolvedRoute",
    "Router",
    "Services",
    "Setup",
    "StrategyFunction",
    "Team",
    "accept",
    "gives_choices",
    "pass_through",
    "ranked",
]
