"""A command of the caller's where a private mount is seen: executed there, waited for, and ended with as it ended."""

from __future__ import annotations

import os
import signal
import sys

from fuservice.errors import (
    EXIT_FAILURE,
    EXIT_NOT_EXECUTABLE,
    EXIT_NOT_FOUND,
    EXIT_SIGNAL,
    LONGEST_SENTENCE,
    FuserviceError,
    SystemCallError,
    printable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final, NoReturn

    from fuservice.backends.holder import Held

    Handlers = Mapping[signal.Signals, object]

MOUNT: Final = "FUSERVICE_MOUNT"  # in the command's environment: where the mount is
SHELL: Final = "/bin/sh"
_TERMINALS: Final = (signal.SIGINT, signal.SIGQUIT)  # which the terminal sends to us, too: they are for the command
_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP)


def execute(held: Held, command: Sequence[str]) -> int:
    """Execute *command*, or the caller's shell, where *held* is seen; return what a shell would: its status, 128 + a signal.

    Ctrl-C is the command's business; SIGTERM and SIGHUP are passed on. Blocks until it ends.
    """
    sys.stdout.flush()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _TERMINALS}
    # Until there is somebody to pass them on to, they wait: or they would end us, and not the command.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    try:
        try:
            pid = os.fork()
        except OSError as error:
            raise SystemCallError(f"no process can be started: {error.strerror}") from None
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
            _become(held, command or [os.environ.get("SHELL") or SHELL], before)
        before |= {number: signal.signal(number, _pass_on(pid)) for number in _FORWARDED}
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else EXIT_SIGNAL - code


def _pass_on(pid: int) -> Callable[[int, object], None]:
    def pass_on(number: int, _frame: object) -> None:
        os.kill(pid, number)  # while we wait for it, the number is its own

    return pass_on


def _become(held: Held, command: Sequence[str], handlers: Handlers) -> NoReturn:
    """Be the command."""
    code = EXIT_FAILURE
    try:
        for number in (*_TERMINALS, signal.SIGPIPE, signal.SIGXFSZ):  # the last two are ignored by Python alone
            signal.signal(number, signal.SIG_IGN if handlers.get(number) == signal.SIG_IGN else signal.SIG_DFL)
        held.join()
        os.environ[MOUNT] = held.mount_point
        os.execvp(command[0], list(command))
    except FuserviceError as error:
        _say(str(error))
    except OSError as error:
        _say(f"{command[0]}: {error.strerror}")
        code = EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_EXECUTABLE
    except ValueError as error:  # a NUL in it
        _say(f"{command[0]!r}: {error}")
    finally:
        os._exit(code)


def _say(sentence: str) -> None:
    print(f"fuservice: {printable(sentence, LONGEST_SENTENCE)}", file=sys.stderr, flush=True)
