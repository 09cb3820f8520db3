"""Tools for tests of actors. They run the real kernel and control only time, order and faults.

* `alone` and `ScriptedPeer`: one actor, with a script in place of each actor that it calls.
* `with_faults`: crash, delay or drop the n-th message of any child; `crashing`: of any child of a whole program.
* `MovingClock`: virtual time of which no two readings are equal.
* `run_virtual`: a whole tree on a mock clock, in a repeatable order of tasks.
* `cancel_at_every_checkpoint`, `raise_at_every_await`: run a scenario again and again, with one fault at each place in
  turn.
* `Injector`: runs an action at each point at which other code may run after data has arrived and before it is used. One
  such point is after a task has been scheduled and before it runs.
* `nothing_left`, `no_open_ends`: check that no task, file, socket, thread or lost exception stays behind.
"""

from llm_actors.testing.alone import LoneActor, ScriptedPeer, alone
from llm_actors.testing.clock import MovingClock
from llm_actors.testing.exhaustive import Fuse, ScenarioHangs, cancel_at_every_checkpoint, raise_at_every_await
from llm_actors.testing.faults import ON_START, Crash, Crashes, Delay, Drop, Fault, InjectedCrash, crashing, with_faults
from llm_actors.testing.injecting import Injector
from llm_actors.testing.leaks import LeakError, no_open_ends, nothing_left
from llm_actors.testing.virtual import Order, run_virtual

__all__ = [
    "ON_START",
    "Crash",
    "Crashes",
    "Delay",
    "Drop",
    "Fault",
    "Fuse",
    "InjectedCrash",
    "Injector",
    "LeakError",
    "LoneActor",
    "MovingClock",
    "Order",
    "ScenarioHangs",
    "ScriptedPeer",
    "alone",
    "cancel_at_every_checkpoint",
    "crashing",
    "no_open_ends",
    "nothing_left",
    "raise_at_every_await",
    "run_virtual",
    "with_faults",
]
