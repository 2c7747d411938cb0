"""Landlock (landlock(7)): a process forbids itself what it has the rights to. Here: everything, but to read what it is left.

What is open already stays usable; hence descriptors are given before, or come through the socket afterwards.
"""

from __future__ import annotations

import struct

from fuservice.linux import libc, syscalls
from fuservice.linux.fds import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

LANDLOCK_CREATE_RULESET_VERSION: Final = 1  # linux/landlock.h
RULESET_ATTR: Final = struct.Struct(
    "QQQ"
)  # struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped

PATH_BENEATH_ATTR: Final = struct.Struct("=Qi")  # struct landlock_path_beneath_attr: allowed_access, parent_fd
LANDLOCK_RULE_PATH_BENEATH: Final = 1
LANDLOCK_ACCESS_FS_READ_FILE: Final = 1 << 2
LANDLOCK_ACCESS_FS_READ_DIR: Final = 1 << 3

#: First version (ABI) that has them → rights on files, rights on the network, scopes: each as a number of lowest bits.
RIGHTS: Final = {
    1: (13, 0, 0),  # Linux 5.13: execute, open, list, make, remove
    2: (14, 0, 0),  # REFER
    3: (15, 0, 0),  # TRUNCATE
    4: (15, 2, 0),  # TCP: bind, connect
    5: (16, 2, 0),  # IOCTL_DEV
    6: (16, 2, 2),  # Linux 6.12: abstract unix sockets, signals
}


def version() -> int:
    """Return the version of Landlock that this kernel has; OSError (ENOSYS, EOPNOTSUPP) where it is absent or off."""
    number = syscalls.number("landlock_create_ruleset")
    return libc.syscall("landlock_create_ruleset", number, None, 0, LANDLOCK_CREATE_RULESET_VERSION)


def everything(abi: int) -> tuple[int, int, int]:
    """Return all rights on files, rights on the network and scopes that version *abi* knows, as bit masks."""
    fs, net, scoped = ((1 << bits) - 1 for bits in RIGHTS[min(abi, max(RIGHTS))])
    return fs, net, scoped


def deny_all(readable: Sequence[int] = ()) -> None:
    """Forbid this process all that this kernel's Landlock can forbid, for good. Needs no_new_privs, or CAP_SYS_ADMIN.

    Directories that descriptors *readable* stand for can still be read, with all below them.
    """
    handled = RULESET_ATTR.pack(*everything(version()))  # a kernel that knows fewer fields takes zeros for the rest
    create, add, restrict = (
        syscalls.number(f"landlock_{name}") for name in ("create_ruleset", "add_rule", "restrict_self")
    )
    with Fd(libc.syscall("landlock_create_ruleset", create, handled, len(handled), 0)) as ruleset:
        for directory in readable:
            rule = PATH_BENEATH_ATTR.pack(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR, directory)
            libc.syscall("landlock_add_rule", add, ruleset.fileno(), LANDLOCK_RULE_PATH_BENEATH, rule, 0)
        libc.syscall("landlock_restrict_self", restrict, ruleset.fileno(), 0)
