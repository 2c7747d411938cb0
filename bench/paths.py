"""Any mounted trees side by side: ``PYTHONPATH=src python -m bench.paths A B …``.

Each must hold a file "big" and a directory "small" of files. Whoever mounts them decides what is cached, and on which core
the servers run (--cpu says where the load runs).
"""

from __future__ import annotations

from pathlib import Path

from bench.rounds import OPERATIONS, arguments, compiled, scratch, table


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("places", nargs="+", type=Path, metavar="PATH")
    options = parser.parse_args()
    with scratch() as directory:
        load = compiled(directory, "load.c")
        table({str(place): place for place in options.places}, OPERATIONS, options, load)


if __name__ == "__main__":
    main()
