"""clone(2) as a fork with flags: a copy of this process in namespaces of its own, in one step and as one process.

os.fork() knows no flags, and unshare(2) puts only the *next* child into a pid namespace: a second fork, and a process that
stays behind to wait. What os.fork() does around the call is done here too, by the functions that Python has for that.
"""

from __future__ import annotations

import ctypes
import signal
from ctypes import c_long, c_ulong

from fuservice.linux import libc, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CLONE_PARENT: Final = 0x0000_8000  # linux/sched.h

# PyDLL keeps the interpreter's lock: nothing of Python's may run between the hooks and the call.
_syscall = ctypes.PyDLL(None, use_errno=True)["syscall"]
_syscall.restype = c_long
_before = ctypes.pythonapi.PyOS_BeforeFork
_after_in_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_in_child = ctypes.pythonapi.PyOS_AfterFork_Child
for _hook in (_before, _after_in_parent, _after_in_child):
    _hook.restype = None


def clone(flags: int) -> int:
    """Fork with *flags* (CLONE_NEW…, CLONE_PARENT); return the child's pid, as our pid namespace has it, and 0 in the child.

    The process must have one thread, as for every fork. With CLONE_PARENT the child is our parent's, who reaps it; EINVAL
    where we are the init of a pid namespace. CLONE_PARENT together with CLONE_NEWPID or CLONE_NEWUSER needs Linux 3.13
    (clone(2)); flags of sharing (CLONE_VM and its like) are not for Python. In the child glibc still has the thread id of
    the parent, which only pthread_kill(3) and abort(3) ask for; the latter ends the process all the same.
    """
    number = syscalls.number("clone")
    _before()
    pid = int(_syscall(c_long(number), c_ulong(flags | signal.SIGCHLD), None, None, None, c_ulong(0)))
    if pid == 0:
        _after_in_child()
        return 0
    _after_in_parent()
    if pid < 0:
        libc.fail("clone")
    return pid
