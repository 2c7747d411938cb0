#!/usr/bin/env python3
"""Print the tables of docs/protocol.md from the code that speaks the protocol.

protocol_tables.py           print them
protocol_tables.py --check   exit 1 unless docs/protocol.md shows exactly these (a test runs it)
protocol_tables.py --write   put them into docs/protocol.md, between their markers
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from fuservice.proto import messages as m  # noqa: E402
from fuservice.proto.dialects import DRAFT  # noqa: E402
from fuservice.proto.states import BEFORE_MOUNT, ONCE, TRANSITIONS  # noqa: E402

DOCUMENT = ROOT / "docs/protocol.md"
SIZES = {"H": "be16", "I": "be32"}
DASH = "–"  # noqa: RUF001  # as in the rest of the document


def word(kind: type[m.Message]) -> str:
    """Return the four characters that open a packet of *kind*."""
    return kind.magic.to_bytes(4, "big").decode("ascii")


def fields(kind: type[m.Message]) -> str:
    """Return what follows the magic, in wire order."""
    codes = kind.layout.format.removeprefix(">")[1:]
    shown = [
        f"{SIZES[code]} {name.replace('_', ' ')}{' = 0' if name == 'padding' else ''}"
        for code, name in zip(codes, kind.fixed, strict=False)
    ]
    rest = ["2 bytes that nobody reads"] if codes.endswith("2x") else []
    return ", ".join([*shown, *rest, *([f"**{kind.text}**"] if kind.text else [])])


def answer(kind: type[m.Message]) -> str:
    """Return the word of the packet that answers one of *kind*."""
    if kind.role is m.Hello:
        return word(m.HelloReply)
    if kind.role is m.Goodbye or kind.role not in m.COMMANDS:
        return DASH
    return word(m.File if issubclass(kind, m.Open) else m.Reply)


def sentence(kind: type[m.Message]) -> str:
    """Return the first sentence of the class's docstring, without the arrow and with the document's marks."""
    text = (kind.__doc__ or "").partition("\n")[0].replace("``", "`").replace("layouts.", "")
    return text.partition(": ")[2]


def table(rows: Iterable[tuple[str, type[m.Message]]]) -> str:
    """Return the table of the messages *rows*, each with the side that sends it."""
    lines = [
        "| from | magic | word | bytes | after the magic | answer | what it says |",
        "|---|---|---|---|---|---|---|",
    ]
    for side, kind in rows:
        shortest = kind.layout.size + (1 if kind.lenient else 2)
        size = f"≥ {shortest}" if kind.text else str(kind.layout.size)
        cells = (side, f"{kind.magic:#010x}", word(kind), size, fields(kind), answer(kind), sentence(kind))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def messages() -> str:
    """Return the table of messages."""
    return table([*(("helper", kind) for kind in m.HELPER_SENDS), *(("service", kind) for kind in m.SERVICE_SENDS)])


def draft() -> str:
    """Return the table of the messages that the draft spells otherwise."""
    kinds = (DRAFT.hello_reply, *DRAFT.by_magic.values())
    other = (("service", kind) for kind in kinds if kind.role is not kind and kind.layout is not kind.role.layout)
    return table([("helper", DRAFT.hello), *other])


def states() -> str:
    """Return the table of states, and the two rules that are no states."""
    rows = ["| state | means | what may be sent, and the state after it |", "|---|---|---|"]
    for state, row in TRANSITIONS.items():
        steps: dict[str, list[str]] = {}
        for kind, following in row.items():
            steps.setdefault(following.name, []).append(word(kind))
        shown = "; ".join(f"{' '.join(kinds)} → {following}" for following, kinds in steps.items())
        rows.append(f"| {state.name} | {state.meaning} | {shown or DASH} |")
    once = " ".join(word(kind) for kind in m.COMMANDS if kind in ONCE)
    before = ", ".join(f"{word(kind)} (“{said}”)" for kind, said in BEFORE_MOUNT.items())
    return "\n".join(
        [*rows, "", f"May succeed once: {once}.", "", f"Must have succeeded before {word(m.Mount)}: {before}."]
    )


TABLES = {"messages": messages, "states": states, "draft": draft}


def rewritten(text: str) -> str:
    """Return *text* with every table between its markers replaced by what the code says."""
    for name, printed in TABLES.items():
        begin, end = f"<!-- {name}: printed by scripts/protocol_tables.py -->", f"<!-- end of {name} -->"
        pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise SystemExit(f"{DOCUMENT.name}: expected one place between `{begin}` and `{end}`")
        before, after = pattern.split(text)
        text = f"{before}{begin}\n{printed()}\n{end}{after}"
    return text


def main(words: list[str]) -> int:
    """Do as the only word says."""
    if words == ["--write"]:
        DOCUMENT.write_text(rewritten(DOCUMENT.read_text()))
    elif words == ["--check"]:
        text = DOCUMENT.read_text()
        if text != rewritten(text):
            print(
                f"{DOCUMENT.name} shows other tables than the code: run scripts/protocol_tables.py --write",
                file=sys.stderr,
            )
            return 1
    elif words:
        print(__doc__, file=sys.stderr)
        return 64
    else:
        print("\n\n".join(printed() for printed in TABLES.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
