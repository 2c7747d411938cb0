"""One target in one process, since atheris owns the process: ``python -m tests.fuzz.one TARGET [libFuzzer's words]``.

What is fuzzed is instrumented as it is imported, so nothing of ours may be imported before.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial


def main(name: str, words: list[str]) -> None:
    """Fuzz; ends the process."""
    atheris = importlib.import_module("atheris")  # not there on every machine, and without types
    with atheris.instrument_imports(include=["fuservice"]):
        targets = importlib.import_module("tests.fuzz.targets")
    atheris.Setup([sys.argv[0], *words], partial(targets.run, name))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
