"""The response cache: complete responses, kept in memory and in a file for later equal requests.

key = key_of(request, targets, policy)
found = await lookup(cache, key, request.request_id)      # mode "read"; None is a miss, for whatever reason
if found is not None:
    return replay(found, request)
…
store(cache, key, response, fallback=…)                   # modes "read" and "refresh"
"""

from llm_actors.cache.actor import CacheActor, cache_child
from llm_actors.cache.embeddings import Split, embedded, embedding_keys, merge_embedding, split_embedding
from llm_actors.cache.entry import Lifetimes, replay, storable
from llm_actors.cache.key import CacheKey, Target, key_of
from llm_actors.cache.messages import (
    CACHE_MAILBOX,
    CacheMessage,
    CacheRef,
    lookup,
    lookup_all,
    lookup_or_wait,
    peek,
    release,
    snapshot,
    statistics,
    store,
    store_all,
)
from llm_actors.cache.own_tier import CacheStore
from llm_actors.cache.statistics import CacheStatistics, TierStatistics

__all__ = [
    "CACHE_MAILBOX",
    "CacheActor",
    "CacheKey",
    "CacheMessage",
    "CacheRef",
    "CacheStatistics",
    "CacheStore",
    "Lifetimes",
    "Split",
    "Target",
    "TierStatistics",
    "cache_child",
    "embedded",
    "embedding_keys",
    "key_of",
    "lookup",
    "lookup_all",
    "lookup_or_wait",
    "merge_embedding",
    "peek",
    "release",
    "replay",
    "snapshot",
    "split_embedding",
    "statistics",
    "storable",
    "store",
    "store_all",
]
