"""Statistics of a daemon, made up."""

from __future__ import annotations

from typing import Any

from llm_actors.kernel import ChildStatus, TreeNode
from llm_actors.kernel.mailbox import MailboxStatistics
from llm_actors.limiter import LimitStatistics
from llm_actors.selector import CircuitState, ExplorationStatistics
from llm_protocol.requests import LLMProvider
from llm_runtime.statistics import (
    CallerStatistics,
    LatencyDistribution,
    ModelUse,
    ProviderStatistics,
    SharedLimitsStatistics,
    Statistics,
)


def node(name: str, *children: TreeNode, status: ChildStatus = ChildStatus.RUNNING, last_crash: str = "") -> TreeNode:
    mailbox = MailboxStatistics()
    return TreeNode(
        name=name, status=status, restarts=0, uptime=7.0, last_crash=last_crash, mailbox=mailbox, children=children
    )


def provider(**known: Any) -> ProviderStatistics:
    settings: dict[str, Any] = {
        "kind": LLMProvider.OPENAI,
        "breaker": CircuitState.CLOSED,
        "circuits": {},
        "attempts": {"ok": 1234, "timeout_idle": 6},
        "unpriced": 0,
        "models": {"m": ModelUse(input_tokens=5000, output_tokens=20, cost=1.5)},
        "attempt_seconds": LatencyDistribution(bounds=(1.0, 2.0), counts=(10, 0, 0), total=5.0),
        "first_token_seconds": None,
        "limits": None,
    }
    return ProviderStatistics(**settings | known)


def told(**known: Any) -> Statistics:
    limits = LimitStatistics(in_flight=1, waiting=2, requests_left=3, tokens_left=None, held_s=0.0)
    settings: dict[str, Any] = {
        "uptime_s": 100.0,
        "running": 3,
        "connections": 2,
        "requests": {"chat": {"ok": 1234, "timeout_idle": 4}},
        "refused": {"queue_full": 1},
        "limited": {"queue_full": {"server": 1}},
        "cache_requests": {"hit": 1, "miss": 3},
        "cache": None,
        "late_events": 0,
        "exploration": ExplorationStatistics(),
        "sharing": SharedLimitsStatistics.OFF,
        "providers": {"primary": provider()},
        "callers": {"me": CallerStatistics(requests=1238, tokens=5020, cost=1.5, limits=limits)},
        "tree": node("llm-runtime", node("core")),
    }
    return Statistics(**settings | known)
