"""The orchestrator: the owner of every run."""

from llm_actors.orchestrator.actor import (
    MAX_RUNS,
    CostOf,
    Orchestrator,
    OrchestratorMessage,
    OrchestratorRef,
    Submit,
    submit,
)

__all__ = ["MAX_RUNS", "CostOf", "Orchestrator", "OrchestratorMessage", "OrchestratorRef", "Submit", "submit"]
