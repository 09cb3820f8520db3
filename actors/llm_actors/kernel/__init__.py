"""The actor kernel: supervised actors with bounded mailboxes, on Trio. It knows nothing of what they do.

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

`docs/kernel.md` is the guide, `docs/semantics.md` the list of guarantees. Worth knowing when writing against it:

* A supervisor under another one: `inner.as_child()`. Keep the object and take its refs from it, at any time.
* `task_child(name, run)` makes a child of `async def run(task_status)`; `start_child` needs `max_children`.
* A call that is handled without an answer fails with `NoReply`; `delivery.defer()` says that it comes later.
* Poison is told by `message.fingerprint()`: override it where a message carries a payload that may crash its reader.
* In a handler, `delivery.reply(...)` is False when the caller has gone: take back what it was given.
"""

from llm_actors.kernel.again import again_after_crashes
from llm_actors.kernel.delivery import Delivery
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
from llm_actors.kernel.message import ActorMessage, Call, Cast
from llm_actors.kernel.ref import DEFAULT_CALL_SECONDS, Ref
from llm_actors.kernel.serve import serve, serve_at_once, serve_concurrently
from llm_actors.kernel.spec import Actor, ChildSpec, Previous, task_child
from llm_actors.kernel.strategy import Restart, Strategy
from llm_actors.kernel.supervisor import Supervisor, SupervisorStatistics, running
from llm_actors.kernel.tree import ChildStatus, TreeNode
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
    "again_after_crashes",
    "lineage",
    "running",
    "serve",
    "serve_at_once",
    "serve_concurrently",
    "task_child",
]
