"""The store: data that outlives the process, in one SQLite file. One actor writes it, in batches.

    stored = await persist(store, (BeginResponse(...),))   # True once it is in the file

A problem with the file never fails a request: `persist` returns False, one line is logged, and the file is tried
again later.
"""

from llm_actors.store.actor import StoreActor, store_child
from llm_actors.store.messages import (
    STORE_MAILBOX,
    Load,
    Persist,
    StoreAwayError,
    StoredResponseRow,
    StoreMessage,
    StoreRef,
    get_spend,
    get_spent,
    load,
    persist,
)
from llm_actors.store.responses import AppendEvents, BeginResponse, DeleteResponse, EndResponse
from llm_actors.store.thread import StoreThread
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
    "StoreAwayError",
    "StoreMessage",
    "StoreRef",
    "StoreThread",
    "StoredResponseRow",
    "Write",
    "get_spend",
    "get_spent",
    "load",
    "persist",
    "store_child",
]
