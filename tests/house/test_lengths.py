"""Lengths: files, functions, and the budget of the part that holds rights. Exceptions carry their reason here."""

from __future__ import annotations

import statistics

from tests.house.source import Module, functions, imports, length, lines_of_code, modules, none

LONGEST_FILE = 400
LONGEST_FUNCTION = 40
LONGEST_WITH_A_REASON = 60
MEDIAN = 10
BUDGET = 1500  # lines of code of the part with rights

#: "file:function" → why it may be longer than 40 lines (and never longer than 60).
LONG_FUNCTIONS: dict[str, str] = {}


def test_files_are_short() -> None:
    none((f"{m.where}: {n}" for m in modules() if (n := m.text.count("\n")) >= LONGEST_FILE), "400 lines or more")


def test_functions_are_short() -> None:
    everything = [(f"{m.where}:{f.name}", f.lineno, length(f)) for m in modules() for f in functions(m.tree)]
    ceiling = dict.fromkeys(LONG_FUNCTIONS, LONGEST_WITH_A_REASON)
    long = [(place, line, n) for place, line, n in everything if n > ceiling.get(place, LONGEST_FUNCTION)]
    none((f"{place} (line {line}): {n}" for place, line, n in long), "too many lines")


def test_no_exception_outlives_its_reason() -> None:
    long = {f"{m.where}:{f.name}" for m in modules() for f in functions(m.tree) if length(f) > LONGEST_FUNCTION}
    assert set(LONG_FUNCTIONS) <= long


def test_the_median_function_is_short() -> None:
    lengths = [length(f) for m in modules("src") for f in functions(m.tree)]
    median = statistics.median(lengths)
    print(f"src: {len(lengths)} functions, median {median:g} lines, longest {max(lengths)}")
    assert median < MEDIAN


def with_what_they_import(names: set[str]) -> list[Module]:
    """Return the modules *names* and the parts of proto and linux that these import, directly or through each other."""
    known = {m.name: m for m in modules("src")}
    while True:
        seen = {i.name for n in names for i in imports(known[n].tree) if i.runtime and i.name in known}
        more = {n for n in seen if known[n].room in {"proto", "linux"}} - names
        if not more:
            return [known[n] for n in sorted(names)]
        names = names | more


def test_the_part_with_rights_stays_small() -> None:
    trusted = with_what_they_import({m.name for m in modules("src") if m.room == "helper"})
    counted = {m.where: lines_of_code(m) for m in trusted}
    total = sum(counted.values())
    print(f"lines of code: helper, and the parts of proto and linux that it imports: {total} of at most {BUDGET}")
    print(*(f"  {n:5} {where}" for where, n in counted.items() if n), sep="\n")
    assert total <= BUDGET
