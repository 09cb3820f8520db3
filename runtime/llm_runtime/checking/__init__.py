"""What an operator wants to know before and after a release: does everything that the configuration names answer?

`check` tries it, all at once and each within `CHECK_SECONDS`; `Report` is what is told. No model is asked for an
answer, which would cost money.
"""

from llm_runtime.checking.report import Check, Report, Status, Validation, refused, report
from llm_runtime.checking.trying import CHECK_SECONDS, check

__all__ = ["CHECK_SECONDS", "Check", "Report", "Status", "Validation", "check", "refused", "report"]
