"""One request in progress: its log, its followers, its cancel scope."""

from llm_actors.run.log import LOG_LIMIT_BYTES, Follower, LogLimitExceeded, RunLog, weigh
from llm_actors.run.run import Judge, Run

__all__ = ["LOG_LIMIT_BYTES", "Follower", "Judge", "LogLimitExceeded", "Run", "RunLog", "weigh"]
