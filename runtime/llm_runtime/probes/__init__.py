"""What an operator wants to know before and after a release: does everything that the configuration names answer?

`check` tries it, all at once and each within `CHECK_SECONDS`; `Report` is what is told. No model is asked for an
answer, which would cost money.
"""

from llm_runtime.probes.probe import CHECK_SECONDS, check
from llm_runtime.probes.report import Check, CheckStatus, Report, Validation, refused, report

__all__ = ["CHECK_SECONDS", "Check", "CheckStatus", "Report", "Validation", "check", "refused", "report"]
