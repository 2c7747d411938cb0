"""run-fuservice-root.mount: an empty directory to be a root. Into it systemd mounts, for each server, what Python loads."""

from __future__ import annotations

from fuservice.units.places import ROOT
from fuservice.units.text import Directive, unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

NAME: Final = ROOT[1:].replace("/", "-") + ".mount"


def root(version: int) -> str:
    """Return the mount unit, for systemd *version*."""
    sections = {
        "Unit": (
            Directive("What `systemctl status` shows.", "Description", "An empty root for filesystem servers"),
            Directive("It is there before fstab is mounted, and until that is unmounted.", "DefaultDependencies", "no"),
        ),
        "Mount": (
            Directive("Nothing is behind it …", "What", "tmpfs"),
            Directive("… but memory …", "Type", "tmpfs"),
            Directive("… here …", "Where", ROOT),
            Directive("… for the names of the places where systemd mounts.",
                      "Options", "mode=0555,size=64k,nr_inodes=256,nosuid,nodev,noexec"),
        ),
    }  # fmt: skip
    return unit(sections, f"{NAME}: made by `fuservice units'.", version)
