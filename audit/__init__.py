"""The auditor: its own reading of docs/protocol.md, which shares no code with the services that it audits."""

from audit.auditing import audit, run
from audit.log import CannotAudit
from audit.report import RULES, Finding, Report

__all__ = ["RULES", "CannotAudit", "Finding", "Report", "audit", "run"]
