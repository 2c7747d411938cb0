"""What runs in the cage in the place of a driver: it is told one attempt, makes it, and says over its socket what came of it.

A process makes one attempt and ends. It says first that it tries, so that an end without a word is the attempt's.
"""

from __future__ import annotations

import errno
import json
import os

from fuservice.errors import EXIT_OK
from fuservice.launch.child import SUPERVISOR
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.prove.attempt import AbsentError, BoundedError
from fuservice.prove.attempts import BY_NAME
from fuservice.prove.ground import Ground

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SOCKET: Final = 3
ROOM: Final = 16_384  # bytes: more than any packet here has
READY: Final = b"ready"
TRYING: Final = b"trying"
SUCCEEDED: Final = "succeeded"
REFUSED: Final = "refused"
BOUNDED: Final = "bounded"
ABSENT: Final = "absent"
BROKEN: Final = "broken"
# What others see of a probe that ended before it said any of these.
KILLED: Final = "killed"
DIED: Final = "died"


def probe() -> int:
    """Serve one connection as fd 3: take the image, the fuse device if there is one, and an attempt; make it."""
    socket = FdSeqPacket(Fd(SOCKET))
    if supervisor := os.environ.pop(SUPERVISOR, ""):  # where a server shows its fuse device before it reads its image
        os.close(int(supervisor))
    os.write(2, READY + b"\n")  # so that the log names our process number, as it is outside
    _, images = socket.receive_with_fds(ROOM)
    if not images:  # a server that is only there: for others to aim at, until the connection is closed
        return EXIT_OK
    text, devices = socket.receive_with_fds(ROOM)
    fuse = devices[0].take() if devices else None
    ground = Ground.parse(text, images[0].take(), fuse)
    name = json.loads(text)["attempt"]
    os.write(SOCKET, TRYING)
    os.write(SOCKET, _outcome(name, ground).encode())
    socket.close()
    return EXIT_OK


def _outcome(name: str, ground: Ground) -> str:
    """Return the first packet's word for what came of it, and what there is to say about it."""
    try:
        BY_NAME[name].tries(ground)
    except OSError as error:
        return f"{REFUSED} {errno.errorcode.get(error.errno or 0, str(error.errno))}"
    except BoundedError as bound:
        return f"{BOUNDED} {bound}"
    except AbsentError as absence:
        return f"{ABSENT} {absence}"
    except MemoryError:
        return f"{BOUNDED} no memory"
    except Exception as error:  # noqa: BLE001  # an attempt with a bug proves nothing, and must say so
        return f"{BROKEN} {type(error).__name__}: {error}"
    return SUCCEEDED
