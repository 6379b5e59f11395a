"""The audit log: who asked what, when, and what came of it, never the texts; and whether it was changed since."""

from service.audit.log import AuditLog, require_writable
from service.audit.record import Record

__all__ = ["AuditLog", "Record", "require_writable"]
