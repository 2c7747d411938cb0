"""What libfuse's example unit says for its own servers: its directives, as facts, without what is about one machine."""

from __future__ import annotations

from typing import Final

UNIT: Final = {"CollectMode": "inactive-or-failed"}
#: Its log goes to the kernel's, by a device that its own DevicePolicy= closes: here to the journal.
SERVICE: Final = {
    "Type": "exec", "LimitCORE": "infinity", "SyslogIdentifier": "%N", "RestrictRealtime": "true", "DynamicUser": "true",
    "ProtectSystem": "strict", "ProtectHome": "true", "PrivateTmp": "true", "PrivateDevices": "true", "PrivateUsers": "true",
    "PrivateNetwork": "true", "ProtectHostname": "true", "RestrictAddressFamilies": "none", "IPAddressDeny": "any",
    "ProtectKernelLogs": "true", "ProtectKernelModules": "true", "ProtectKernelTunables": "true", "ProtectControlGroups": "true",
    "ProtectProc": "invisible", "RestrictNamespaces": "true", "RestrictFileSystems": "", "ProcSubset": "pid",
    "LockPersonality": "true", "MemoryDenyWriteExecute": "true", "PrivateMounts": "true", "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EL3RST", "CapabilityBoundingSet": "", "AmbientCapabilities": "", "NoNewPrivileges": "true",
    "UMask": "7777", "ProtectClock": "true", "DevicePolicy": "closed", "RestrictSUIDSGID": "true", "OOMPolicy": "continue",
    "OOMScoreAdjust": "-1000",
}  # fmt: skip
FILTER: Final = (
    "@system-service", "~@privileged", "~@resources", "~@clock", "~@cpu-emulation", "~@debug", "~@module", "~@reboot", "~@swap",
    "~@mount", "mbind", "sched_setaffinity",
)  # fmt: skip


def unit(program: str, more: str = "") -> str:
    """Return the template unit that starts *program*, with *more* lines of its [Service]."""
    service = [
        *(f"{name}={value}" for name, value in SERVICE.items()),
        *(f"SystemCallFilter={calls}" for calls in FILTER),
    ]
    unit = [f"{name}={value}" for name, value in UNIT.items()]
    return "\n".join(["[Unit]", *unit, "[Service]", f"ExecStart={program}", *service, more])
