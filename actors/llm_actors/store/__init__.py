"""The store: what must outlive the process, in one SQLite file. One actor writes it, in batches.

    stored = await persist(store, (BeginResponse(...),))   # True once it is in the file

Whatever is wrong with the file costs nobody a request: `persist` returns False, there is one line in the log, and the
file is tried again later.
"""

from llm_actors.store.actor import StoreActor, store_child
from llm_actors.store.messages import (
    STORE_MAILBOX,
    Load,
    Persist,
    StoredResponseRow,
    StoreMessage,
    StoreRef,
    get_spend,
    get_spent,
    load,
    persist,
)
from llm_actors.store.responses import AppendEvents, BeginResponse, DeleteResponse, EndResponse
from llm_actors.store.write import Write

__all__ = [
    "STORE_MAILBOX",
    "AppendEvents",
    "BeginResponse",
    "DeleteResponse",
    "EndResponse",
    "Load",
    "Persist",
    "StoreActor",
    "StoreMessage",
    "StoreRef",
    "StoredResponseRow",
    "Write",
    "get_spend",
    "get_spent",
    "load",
    "persist",
    "store_child",
]
