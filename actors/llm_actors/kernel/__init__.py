"""The actor kernel: supervised actors with bounded mailboxes, on Trio.

    class Add(Call[int], frozen=True):
        amount: int

    class Counter:
        def __init__(self) -> None:
            self.total = 0

        async def run(self, inbox: Inbox[Add], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await serve(inbox, self.handle)

        async def handle(self, delivery: Delivery[Add]) -> None:
            self.total += delivery.message.amount
            delivery.reply(delivery.message, self.total)

    counter = ChildSpec("counter", lambda previous: Counter())
    root = Supervisor([counter])

    async with running(root):
        total = await root.ref(counter).call(Add(2))

`docs/kernel.md` is the guide, `docs/semantics.md` the list of guarantees. Points to know when you write an actor:

* `inner.as_child()` returns the spec that puts the supervisor `inner` under another one. Keep the `inner` object:
  `inner.ref(child)` works at any time.
* `task_child(name, run)` makes a child of `async def run(task_status)`. `Supervisor.start_child` needs a supervisor
  that was created with `max_children`.
* A call that is handled without a reply fails with `NoReply`. To reply after the handler has returned, call
  `delivery.defer()` in the handler.
* A payload that has crashed the actor twice is refused. `message.fingerprint()` identifies the payload: override that
  method in messages that carry data from a caller.
* `delivery.reply(...)` returns False if the caller has gone. A handler that grants something must then take it back.
"""

from llm_actors.kernel.child_state import ChildStatus, TreeNode
from llm_actors.kernel.delivery import ActorMessage, Call, Cast, Delivery
from llm_actors.kernel.errors import (
    ActorCrashed,
    CallCycle,
    CallExpired,
    GaveUp,
    KernelError,
    MailboxFull,
    NameTaken,
    NoReply,
    NotRunning,
    Parked,
    PoisonRefused,
    ShuttingDown,
    StartFailed,
    StillRunning,
    SupervisorFailed,
    TooManyChildren,
    lineage,
)
from llm_actors.kernel.inbox import Inbox
from llm_actors.kernel.instrument import SchedulerInstrument, SchedulerStatistics
from llm_actors.kernel.lifecycle import Bus, Lagged, LifecycleEvent, Subscription
from llm_actors.kernel.mailbox import MailboxSpec, MailboxStatistics, Overflow
from llm_actors.kernel.ref import DEFAULT_CALL_SECONDS, Ref, retry_after_crashes
from llm_actors.kernel.serve import serve, serve_at_once, serve_concurrently
from llm_actors.kernel.spec import Actor, ChildSpec, Previous, Restart, Strategy, task_child
from llm_actors.kernel.supervisor import Supervisor, SupervisorStatistics, running
from llm_actors.kernel.window import Backoff, Intensity

__all__ = [
    "DEFAULT_CALL_SECONDS",
    "Actor",
    "ActorCrashed",
    "ActorMessage",
    "Backoff",
    "Bus",
    "Call",
    "CallCycle",
    "CallExpired",
    "Cast",
    "ChildSpec",
    "ChildStatus",
    "Delivery",
    "GaveUp",
    "Inbox",
    "Intensity",
    "KernelError",
    "Lagged",
    "LifecycleEvent",
    "MailboxFull",
    "MailboxSpec",
    "MailboxStatistics",
    "NameTaken",
    "NoReply",
    "NotRunning",
    "Overflow",
    "Parked",
    "PoisonRefused",
    "Previous",
    "Ref",
    "Restart",
    "SchedulerInstrument",
    "SchedulerStatistics",
    "ShuttingDown",
    "StartFailed",
    "StillRunning",
    "Strategy",
    "Subscription",
    "Supervisor",
    "SupervisorFailed",
    "SupervisorStatistics",
    "TooManyChildren",
    "TreeNode",
    "lineage",
    "retry_after_crashes",
    "running",
    "serve",
    "serve_at_once",
    "serve_concurrently",
    "task_child",
]
