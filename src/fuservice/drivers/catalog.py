"""Which driver serves which type. A driver is imported when it is asked for, and not before."""

from __future__ import annotations

from importlib import import_module

from fuservice.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from fuservice.service.driver import Driver

#: Type name → module and class of its driver.
DRIVERS: Final[Mapping[str, tuple[str, str]]] = {
    "ext2": ("fuservice.drivers.ext4", "Ext4"),
    "ext3": ("fuservice.drivers.ext4", "Ext4"),
    "ext4": ("fuservice.drivers.ext4", "Ext4"),
    "memtree": ("fuservice.drivers.memtree", "MemtreeDriver"),
}


def where(name: str) -> tuple[str, str]:
    """Return module and class of the driver for type *name*; UsageError naming the types that there are."""
    if name not in DRIVERS:
        raise UsageError(f"no driver for type `{name}': there are {', '.join(DRIVERS)}")
    return DRIVERS[name]


def find(name: str) -> type[Driver]:
    """Return the driver for type *name*; UsageError naming the types that there are."""
    module, driver = where(name)
    found: type[Driver] = getattr(import_module(module), driver)
    return found
