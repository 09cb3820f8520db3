"""The orchestrator actor: takes runs on, and sees each to its end.

Each run is a task here, in the run's own cancel scope, with the request's one deadline. Whatever happens, the run's
log ends with exactly one terminal event: that is the promise all followers rely on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias, final

import trio

from llm_actors.catalog import Candidate, Catalog, CatalogRef, refresh
from llm_actors.kernel import Call, Delivery, Inbox, KernelError, Ref
from llm_actors.kernel.trace import place
from llm_actors.provider import Outcome, ProviderRef, failure_of, generate
from llm_actors.run import Run
from llm_protocol.errors import LLMClientError, ModelNotFoundError, QueueFullError, error_for
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.response import LLMResponse, Usage

MAX_RUNS = 5_000
"""Runs in flight at once. One more is refused: waiting belongs to the limiter, which knows for what."""

DEFAULT_DEADLINE_SECONDS = 600.0
"""A request's whole time budget when it brings none of its own."""

CostOf: TypeAlias = Callable[[str, str, Usage], float | None]
"""Deployment, model, usage -> US dollars, or ``None`` where the price is unknown."""

log = logging.getLogger(__name__)


class Submit(Call[None], frozen=True):
    """Take ``run`` on. Answered once it is accepted; from then on everything is said in its log."""

    run: Run


OrchestratorMessage: TypeAlias = Submit
OrchestratorRef: TypeAlias = Ref[OrchestratorMessage]


async def submit(orchestrator: OrchestratorRef, run: Run) -> None:
    """Hand ``run`` over and wait until it is accepted, not until it is answered.

    Raises `LLMClientError` when it is refused: its log stays empty then.
    """
    try:
        await orchestrator.call(Submit(run))
    except KernelError as exc:
        raise error_for(failure_of(exc, "llm-runtime")) from exc


@final
class Orchestrator:
    """Owns the runs. ``providers`` maps deployments to their actors."""

    def __init__(
        self, catalog: Catalog, lister: CatalogRef, providers: Mapping[str, ProviderRef], cost_of: CostOf
    ) -> None:
        self._catalog = catalog
        self._lister = lister
        self._providers = providers
        self._cost_of = cost_of
        self._active = 0

    async def run(self, inbox: Inbox[OrchestratorMessage], *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until asked to stop, then wait for the runs in flight. Cancelling ends each of them with a failure."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            async for delivery in inbox:
                if self._active >= MAX_RUNS:
                    delivery.fail(QueueFullError(f"{MAX_RUNS} requests are in flight already"))
                    continue
                self._active += 1
                nursery.start_soon(self._live, delivery)

    async def _live(self, delivery: Delivery[OrchestratorMessage]) -> None:
        run = delivery.message.run
        try:
            with run.scope:
                run.scope.deadline = run.started_at + (run.request.deadline_s or DEFAULT_DEADLINE_SECONDS)
                try:
                    candidates = await self._candidates(run)
                except LLMClientError as exc:
                    delivery.fail(exc)
                    return
                delivery.reply(delivery.message, None)
                await self._answer(run, candidates)
        except Exception as exc:  # a bug of ours ends this run, not the others
            log.error("request %s crashed: %s", run.request.request_id, place(exc))  # noqa: TRY400  (a traceback may quote)
            run.fail(Failure(kind=FailureKind.INTERNAL, message="the runtime failed while it worked on this request"))
        finally:
            self._active -= 1
            run.close()

    async def _candidates(self, run: Run) -> list[Candidate]:
        try:
            return self._catalog.resolve(run.request)
        except ModelNotFoundError:
            if not self._catalog.unlisted:
                raise
        await refresh(self._lister, only_unlisted=True)
        return self._catalog.resolve(run.request)

    async def _answer(self, run: Run, candidates: list[Candidate]) -> None:
        candidate = candidates[0]
        request = run.request.to(candidate.model)
        try:
            outcome = await generate(
                self._providers[candidate.provider], request, stream=run.stream, sink=run.log.append
            )
        except KernelError as exc:
            failure = failure_of(exc, candidate.provider)
            outcome = Outcome(end=Failed(failure=failure), duration_s=trio.current_time() - run.started_at)
        self._settle(run, candidate, outcome)

    def _settle(self, run: Run, candidate: Candidate, outcome: Outcome) -> None:
        response = self._response(run, candidate, outcome.end)
        if isinstance(outcome.end, Finished):
            run.finish(outcome.end, response)
        else:
            run.fail(outcome.end.failure, response)
        log.info(
            "request %s %s by %s in %.0f ms",
            run.request.request_id,
            "completed" if isinstance(outcome.end, Finished) else f"failed ({outcome.end.failure.kind.value})",
            candidate,
            response.processing_time_ms,
        )

    def _response(self, run: Run, candidate: Candidate, end: Finished | Failed) -> LLMResponse:
        fold = run.fold()
        fold.add(end)
        model = fold.started.model or candidate.model
        return fold.response(
            request_id=run.request.request_id,
            response_id=run.response_id,
            provider=candidate.provider,
            model=model,
            processing_time_ms=run.elapsed_ms,
            cost=self._cost_of(candidate.provider, model, fold.usage) if fold.usage else None,
        )
