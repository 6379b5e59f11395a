"""The service's metrics."""

from service.telemetry.formats import Format
from service.telemetry.telemetry import Change, Telemetry
from service.telemetry.versions import Role, VersionMetrics

__all__ = ["Change", "Format", "Role", "Telemetry", "VersionMetrics"]
