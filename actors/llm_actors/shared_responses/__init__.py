"""Stored responses in Redis, for all replicas of a daemon.

A replica writes the responses that it produces (`put`). It renews its heartbeat and reads the orders of the other
replicas (`sync`). The other replicas read responses (`load`, `tail`) and send orders (`cancel`, `hold`, `delete`). A
replica that does not renew its heartbeat for `HEARTBEAT_SECONDS` counts as ended: its responses in progress become
interrupted, and remain interrupted.

Prompts and responses are stored in Redis without encryption. Every method raises `RedisAwayError` while Redis is
unreachable. Then it is unknown whether the method had its effect.
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
