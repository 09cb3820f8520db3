"""The orchestrator actor: accepts runs, and drives each to its end.

Each run is a task of the orchestrator, in the run's own cancel scope, with the request's one deadline. Whatever
happens, the run's log ends with exactly one terminal event: all followers rely on that.

A run passes these stages. Each is a function of its input and of the next stage:

    route     the candidates and the policy                          routing.py
    share     from the cache, or one flight for equal requests       single_flight.py
    plan      one model at a time, or several by a strategy          `upstream`, below; attempt_loop.py, strategies/
    reserve   within the limits, a slot, a budget, a closed circuit  reserve.py
    attempt   one attempt at one deployment                          attempt.py
    settle    into limiter, selector and estimator                   attempt.py
    close     the log folded into a response, and closed             ending.py

The stages return a `RunResult`, and finally the end of the run. They do not return the events: the provider writes
these into the run's log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeAlias, final

import trio

from llm_actors.catalog import refresh
from llm_actors.kernel import Call, CallExpired, Delivery, Inbox, KernelError, Ref, serve_at_once
from llm_actors.kernel.errors import exception_site
from llm_actors.orchestrator.attempt_loop import AttemptLoop
from llm_actors.orchestrator.decision_record import DecisionRecord
from llm_actors.orchestrator.ending import RunResult, close_early, fold
from llm_actors.orchestrator.log_line import log_end
from llm_actors.orchestrator.routing import ResolvedRoute, Router, Setup, is_plain
from llm_actors.orchestrator.services import AttemptContext, Services
from llm_actors.orchestrator.single_flight import SingleFlight
from llm_actors.provider import failure_of
from llm_actors.run import Run
from llm_protocol.errors import LLMClientError, ModelNotFoundError, QueueFullError, error_for
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import AnyRequest

log = logging.getLogger(__name__)


class Accept(Call[None], frozen=True):
    """Accept ``run``. The reply is sent when the run is accepted; all later events are in its log."""

    run: Run


OrchestratorMessage: TypeAlias = Accept
OrchestratorRef: TypeAlias = Ref[OrchestratorMessage]


async def accept(orchestrator: OrchestratorRef, run: Run) -> None:
    """Submit ``run`` and wait until it is accepted. Waits at most until the run's deadline, and not for its response.

    Raises `LLMClientError` if the run is refused; then nothing was done for it.
    """
    try:
        await orchestrator.call(Accept(run), deadline=run.scope.deadline)
    except CallExpired:
        run.close()
        if isinstance(run.log.end, Failed):  # else the response came in the same moment as the deadline
            raise error_for(run.log.end.failure) from None
    except KernelError as exc:
        raise error_for(failure_of(exc, "llm-runtime")) from exc
    except trio.Cancelled:
        run.cancel("the caller has cancelled")  # it may have been accepted, but nobody will follow it
        raise


class CurrentSetup(Protocol):
    """The part of the tree that the orchestrator uses."""

    @property
    def setup(self) -> Setup:
        """The setup for new runs."""
        ...


@final
class Orchestrator:
    """The actor of the orchestrator: accepts, starts and ends the runs."""

    def __init__(self, current: CurrentSetup) -> None:
        self._current = current
        self._runs: set[Run] = set()

    async def run(self, inbox: Inbox[OrchestratorMessage], *, task_status: trio.TaskStatus[None]) -> None:
        """Handle messages until asked to stop, then wait for the runs in progress. If this is cancelled or crashes, or
        a supervisor above gives up, each run ends with a failure that says so.
        """
        inbox.when_stopping(lambda: self._end_as_crashed() if inbox.failed else None)
        async with trio.open_nursery() as nursery:
            flights = SingleFlight(upstream, nursery)
            task_status.started()
            try:
                await serve_at_once(inbox, partial(self._take_on, nursery, flights))
            except Exception:
                self._end_as_crashed()  # before the nursery cancels them and they take it for a shutdown
                raise

    def _take_on(self, nursery: trio.Nursery, flights: SingleFlight, delivery: Delivery[OrchestratorMessage]) -> None:
        """Accept or refuse a run at once. Only a model that is on no list yet causes a wait."""
        run, setup = delivery.message.run, self._current.setup
        services, router = setup.services, setup.router
        if len(self._runs) >= services.max_runs:  # only the limiter lets requests wait
            error = QueueFullError(
                f"{services.max_runs} requests are in progress already, the most that [server] max_runs allows"
            )
            services.metrics.refuse(error.failure)
            delivery.fail(error)
            return
        routed: ResolvedRoute | None = None
        try:
            latest = run.started_at + router.deadline_s(run.request)
            if latest < run.scope.deadline:
                run.scope.deadline = latest
            routed = router.route(run.request)
            self._accept(services, delivery)
        except LLMClientError as exc:
            if not (isinstance(exc, ModelNotFoundError) and services.catalog.unlisted):
                run.fail(exc.failure)
                self._refuse(services, delivery)
                return
            delivery.defer()
        except Exception as exc:
            _fail_as_bug(run, exc)
            self._refuse(services, delivery)
            return
        self._runs.add(run)
        nursery.start_soon(self._live, delivery, routed, flights, setup)

    @staticmethod
    def _accept(services: Services, delivery: Delivery[OrchestratorMessage]) -> None:
        metrics = services.metrics
        delivery.message.run.log.on_late = metrics.drop_late_event
        metrics.running += 1
        delivery.reply(delivery.message, None)

    @staticmethod
    def _refuse(services: Services, delivery: Delivery[OrchestratorMessage]) -> None:
        failure = _failure_of(delivery.message.run)
        services.metrics.refuse(failure)
        if not delivery.abandoned:
            delivery.fail(error_for(failure))

    def _end_as_crashed(self) -> None:
        for run in tuple(self._runs):
            run.cancel("the runtime crashed and is restarting; try again", FailureKind.CRASHED)

    async def _live(
        self, delivery: Delivery[OrchestratorMessage], routed: ResolvedRoute | None, flights: SingleFlight, setup: Setup
    ) -> None:
        run, services = delivery.message.run, setup.services
        try:
            with setup, run.scope:
                if routed is None:
                    try:
                        routed = await _listed_route(services, setup.router, run.request)
                    except LLMClientError as exc:
                        run.fail(exc.failure)
                        return
                    self._accept(services, delivery)
                await flights.share(run, routed, setup)
        except Exception as exc:
            _fail_as_bug(run, exc)
        finally:
            self._runs.discard(run)
            run.close()
            if routed is not None:
                services.metrics.end(run)
                services.accounting.note_end(run)
                if (line := log_end(run)) is not None:
                    services.recent.add(run, line)
                if services.run_logs:
                    run.timed = (time.time(), run.elapsed_ms / 1000)
                for each in services.run_logs:
                    each.add(run)
            elif not delivery.answered:
                self._refuse(services, delivery)


def _fail_as_bug(run: Run, exc: Exception) -> None:
    """End this run as failed because of a bug in the runtime. Other runs are not affected."""
    # No traceback: it may contain parts of the request.
    log.error("request %s crashed: %s", run.request.request_id, exception_site(exc))
    run.fail(Failure(kind=FailureKind.INTERNAL, message="the runtime failed while it handled this request"))


def _failure_of(run: Run) -> Failure:
    """Return the failure of a run that was closed before it was accepted."""
    end = run.log.end
    assert isinstance(end, Failed), "a run that was closed before it was accepted must have failed"
    return end.failure


async def _listed_route(services: Services, router: Router, request: AnyRequest) -> ResolvedRoute:
    """Return the candidates for a request whose model is on no list, after fetching the models of providers that have
    no list yet. Raises `LLMClientError`.
    """
    try:
        await refresh(services.lister, only_unlisted=True)
    except KernelError as exc:  # the last list remains valid, and may well lack a model that the provider offers
        raise error_for(failure_of(exc, "catalog")) from exc
    return router.route(request)


async def upstream(
    services: Services, run: Run, routed: ResolvedRoute, deadline: Callable[[], float], record: DecisionRecord
) -> Finished | Failed:
    """Serve a run by calling providers. Events are written into its log, which is still open at the end. Returns the
    end with which to close it.

    Takes until the run's deadline at most. Raises only `trio.Cancelled`, after closing the log, and bugs.
    """
    context = AttemptContext(
        request=run.request,
        candidates=routed.candidates,
        policy=routed.policy,
        on_broken_stream=routed.rescue(run.request, stream=run.stream),
        stream=run.stream,
        log=run.log,
        deadline=deadline,
        record=record,
        allowed=routed.allowed,
        payer=services.accounting.payer(run.request),
    )
    try:
        result = await _answer(services, context, run)
    except BaseException as exc:
        if not isinstance(exc, Exception):  # a cancellation, which a nursery below may have put into an exception group
            close_early(run, record)  # a request whose deadline passed reports what was tried, too
        raise
    return fold(services, run, result, record)


def _answer(services: Services, context: AttemptContext, run: Run) -> Awaitable[RunResult]:
    if is_plain(context.policy):
        return AttemptLoop(services, context).answer()
    # Imported here, because most programs never need it and every program would wait for it at its start.
    from llm_actors.orchestrator.strategies.several import carried_out

    return carried_out(services, context, run)
