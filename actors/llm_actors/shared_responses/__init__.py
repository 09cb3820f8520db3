"""Stored responses in Redis, for all replicas of a daemon.

A replica writes what it makes (`put`), says that it is there and hears what the others want of it (`sync`); the others
read (`load`, `tail`) and send orders (`order`). A response whose replica is not heard of for `HEARTBEAT_SECONDS` is
interrupted, once and for all.

Prompts and answers are in Redis in plain form. Every method raises `RedisAwayError` while Redis is away; then it may
have done its work, or not.
"""

from llm_actors.redis import RedisAwayError
from llm_actors.shared_responses.responses import BATCH_BYTES, HEARTBEAT_SECONDS, SharedResponses, batches
from llm_actors.shared_responses.rows import (
    Ending,
    Put,
    PutResult,
    ReplicaNews,
    ReplicaOrder,
    ResponseState,
    SharedRow,
    SharedTail,
)

__all__ = [
    "BATCH_BYTES",
    "HEARTBEAT_SECONDS",
    "Ending",
    "Put",
    "PutResult",
    "RedisAwayError",
    "ReplicaNews",
    "ReplicaOrder",
    "ResponseState",
    "SharedResponses",
    "SharedRow",
    "SharedTail",
    "batches",
]
