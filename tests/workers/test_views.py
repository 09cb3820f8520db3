"""What several workers show as one."""

from __future__ import annotations

import msgspec

from llm_actors.cache import CacheStatistics
from llm_actors.cache.statistics import TierStatistics
from llm_actors.kernel import ChildStatus, TreeNode
from llm_actors.kernel.mailbox import MailboxStatistics
from llm_actors.limiter import LimitStatistics
from llm_actors.orchestrator import RecentRequest
from llm_actors.orchestrator.log_line import LogFields
from llm_actors.orchestrator.recent_requests import KEPT
from llm_actors.selector import CircuitState, ExplorationStatistics
from llm_runtime.statistics import (
    BudgetUse,
    CallerStatistics,
    LatencyDistribution,
    ModelUse,
    ProviderStatistics,
    SharedLimitsStatistics,
    Statistics,
    only_of,
)
from llm_runtime.workers import views

TREE = TreeNode(
    name="llm-runtime",
    status=ChildStatus.RUNNING,
    restarts=1,
    uptime=7.0,
    last_crash="",
    mailbox=MailboxStatistics(),
)
TIER = TierStatistics(entries=2, bytes=10, hits=1, misses=1, stored=1, evicted=1, expired=1, dropped=1, errors=1)
LIMITS = LimitStatistics(in_flight=1, waiting=2, requests_left=5, tokens_left=None, held_s=1.0)
PROVIDER = ProviderStatistics(
    kind="openai",
    breaker=CircuitState.CLOSED,
    circuits={"m": CircuitState.OPEN},
    attempts={"ok": 2},
    unpriced=1,
    models={"m": ModelUse(input_tokens=3, output_tokens=4, cost=None)},
    attempt_seconds=LatencyDistribution(bounds=(1.0,), counts=(1, 2), total=3.0),
    first_token_seconds=None,
    limits=LIMITS,
)
BUDGET = BudgetUse(
    callers=None, routes=(), per="day", soft=None, usd=1.0, usd_limit=5.0, tokens=7, tokens_limit=None, resets_at=100.0
)
ONE = Statistics(
    uptime_s=7.0,
    running=2,
    connections=3,
    requests={"chat": {"ok": 4}},
    refused={"queue_full": 1},
    limited={"rate_limit": {"caller": 1}},
    cache_requests={"hit": 1},
    late_events=1,
    exploration=ExplorationStatistics(ranked=1, explored=1, excess=0.5),
    cache=CacheStatistics(memory=TIER, file=TIER, redis=TIER),
    sharing=SharedLimitsStatistics.ON,
    providers={"p": PROVIDER},
    callers={"a": CallerStatistics(requests=1, tokens=2, cost=0.5, limits=LIMITS)},
    tree=TREE,
    budgets={"b": BUDGET},
)


def test_counts_are_added_and_the_worst_state_is_told() -> None:
    other = msgspec.structs.replace(
        ONE,
        uptime_s=9.0,
        connections=None,
        requests={"chat": {"ok": 1, "timeout": 2}, "code": {"ok": 1}},
        sharing=SharedLimitsStatistics.LOST,
        cache=None,
        providers={
            "p": msgspec.structs.replace(
                PROVIDER,
                breaker=CircuitState.HALF_OPEN,
                circuits={},
                models={"m": ModelUse(input_tokens=1, output_tokens=1, cost=0.25)},
                limits=msgspec.structs.replace(LIMITS, requests_left=4, tokens_left=9),
            )
        },
        callers={"b": CallerStatistics(requests=1, tokens=1, cost=0.0)},
        budgets={"b": msgspec.structs.replace(BUDGET, usd=2.0, tokens=3)},
    )
    both = views.statistics({1: ONE, 2: other})
    assert (both.uptime_s, both.running, both.connections, both.late_events) == (9.0, 4, 3, 2)
    assert both.requests == {"chat": {"ok": 5, "timeout": 2}, "code": {"ok": 1}}
    assert (both.refused, both.limited) == ({"queue_full": 2}, {"rate_limit": {"caller": 2}})
    assert both.exploration == ExplorationStatistics(ranked=2, explored=2, excess=1.0)
    assert (both.sharing, both.cache) == (SharedLimitsStatistics.LOST, ONE.cache)
    provider = both.providers["p"]
    assert (provider.breaker, provider.circuits) == (CircuitState.HALF_OPEN, {"m": CircuitState.OPEN})
    assert provider.models == {"m": ModelUse(input_tokens=4, output_tokens=5, cost=0.25)}
    assert provider.attempt_seconds == LatencyDistribution(bounds=(1.0,), counts=(2, 4), total=6.0)
    assert provider.limits == LimitStatistics(in_flight=2, waiting=4, requests_left=4, tokens_left=9, held_s=1.0)
    assert both.callers.keys() == {"a", "b"}
    assert both.budgets == {"b": msgspec.structs.replace(BUDGET, usd=2.0)}, "they are shared"
    assert [each.name for each in both.tree.children] == ["worker-1", "worker-2"]


def test_of_a_budget_the_window_of_now_is_told() -> None:
    other = msgspec.structs.replace(ONE, budgets={"b": msgspec.structs.replace(BUDGET, usd=0.5, resets_at=200.0)})
    assert views.statistics({1: ONE, 2: other}).budgets == other.budgets
    assert views.statistics({1: other, 2: ONE}).budgets == other.budgets


def test_the_usage_of_one_caller_stays_marked_as_its_own() -> None:
    own = only_of("a", ONE)
    both = views.statistics({1: own, 2: own})
    assert both.own_only
    assert both.callers["a"].requests == 2
    assert not views.statistics({1: ONE, 2: ONE}).own_only


def test_the_file_and_the_redis_of_the_cache_are_one() -> None:
    found = views.statistics({1: ONE, 2: ONE}).cache
    assert found is not None
    assert (found.memory.bytes, found.memory.entries, found.memory.hits) == (20, 4, 2)
    assert found.file is not None
    assert (found.file.bytes, found.file.hits) == (10, 2)
    assert found.redis == found.file


def test_metrics_have_their_worker() -> None:
    text = (
        b"# HELP a_total Of a.\n# TYPE a_total counter\n"
        b'a_total{model="x\\"y"} 2.0\n# HELP b Of b.\n# TYPE b gauge\nb 1.5\n'
        b'# HELP c Of c.\n# TYPE c histogram\nc_bucket{le="1.0"} 1.0\nc_bucket{le="+Inf"} 2.0\nc_count 2.0\nc_sum 3.0\n'
    )
    lines = views.metrics({2: text, 1: text}).decode().splitlines()
    assert [line for line in lines if line.startswith("a_total")] == [
        'a_total{model="x\\"y",worker="1"} 2.0',
        'a_total{model="x\\"y",worker="2"} 2.0',
    ]
    assert lines.count("# TYPE a_total counter") == lines.count("# TYPE c histogram") == 1
    assert 'c_bucket{le="+Inf",worker="2"} 2.0' in lines
    assert 'b{worker="1"} 1.5' in lines


def test_the_last_requests_are_those_of_all() -> None:
    def ended(at: float) -> RecentRequest:
        return RecentRequest(
            request=LogFields(id="r", model="m", status=200, ms=1.0, attempts=1), ended_at=at, calls=[]
        )

    found = views.recent_requests([[ended(5), ended(1)], [ended(4)] * KEPT])
    assert len(found) == KEPT
    assert [each.ended_at for each in found[:2]] == [5, 4]
