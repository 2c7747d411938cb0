"""After a server of a user's own manager that died: ``python -I -m fuservice.cli.tidied``. Not for people.

Who looks after such a server sees none of the user's mounts, and writes down which one has lost it (``cli/serve.py``); systemd
runs this where they are seen.
"""

from __future__ import annotations

import sys
from functools import partial

from fuservice.cli.afterwards import tidy
from fuservice.cli.contained import Log
from fuservice.errors import EXIT_OK
from fuservice.launch.keeper import WARNING
from fuservice.launch.state import States, directory


def main() -> int:
    """Detach what is dead, and write down why; return the exit code."""
    for device, why in States(directory()).left.items():
        tidy(device, why or "who looked after it was killed", partial(Log(), WARNING))
    States(directory())  # which forgets what is gone
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
