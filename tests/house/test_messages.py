"""Every sentence of the programs is listed, with its exit code, in docs/messages.md; and the man pages know these codes."""

from __future__ import annotations

import re

import pytest

from fuservice import errors
from tests.house import messages
from tests.house.source import none
from tests.support.capabilities import REPOSITORY

PAGE = REPOSITORY / "docs/messages.md"
MAN = REPOSITORY / "docs/man"


def test_the_list_is_what_the_source_says() -> None:
    said, listed = messages.page().splitlines(), PAGE.read_text().splitlines()
    new, old = [line for line in said if line not in listed], [line for line in listed if line not in said]
    how = "python -m tests.house.messages >docs/messages.md"
    assert said == listed, "\n  ".join([how, *(f"+ {line}" for line in new), *(f"- {line}" for line in old)])


def test_it_finds_sentences_of_every_kind() -> None:
    """Those whose raising takes each of the forms that the source has."""
    found = {(message.module, message.code, message.text) for message in messages.collect()}
    assert {
        ("cli.mount", 64, "mount: --name is for one source without a mount point"),  # as it stands
        (
            "cli.commandline",
            1,
            "--timeout={value}: expected seconds, more than 0 and at most 86400",
        ),  # a class of its own
        ("helper.mount", 2, "no safe filesystem driver for {subtype} available."),  # a variable, one of two classes
        ("helper.attach", 1, "attaching the mount: {why}"),  # of()
        ("backends.choose", 64, "--via={via}: expected one of {…, …}"),
    } <= found


def test_a_sentence_is_one_line_and_ends_without_a_stop() -> None:
    """Two are libfuse's own, to the letter."""
    theirs = {"no safe filesystem driver for {subtype} available.", "cannot determine filesystem type."}
    odd = [
        m
        for m in messages.collect()
        if m.text.endswith(".") and m.text not in theirs and "Mount point must be" not in m.text
    ]
    none(
        (
            f"{m.module}: {m.text}"
            for m in odd
            if not re.search(r"\{[^}]*\}\.$|libfuse|fuse server|too long\.$", m.text)
        ),
        "a full stop",
    )


def codes(page: str) -> set[int]:
    """Return the exit codes that a man page lists."""
    text = (MAN / page).read_text()
    section = text.partition(".SH EXIT STATUS")[2].partition(".SH")[0]
    return set(map(int, re.findall(r"^\.B (\d+)$", section, re.MULTILINE)))


def test_man_pages_list_the_exit_codes_that_there_are() -> None:
    said = {message.code for message in messages.collect()}
    ours = {errors.EXIT_OK, errors.EXIT_FAILURE, errors.EXIT_NO_SERVICE, errors.EXIT_USAGE, errors.EXIT_INTERRUPTED}
    assert said < ours and codes("fuservice.1") >= ours
    assert codes("fuservicemount.8") >= {errors.EXIT_OK, errors.EXIT_FAILURE, errors.EXIT_NO_SERVICE}


@pytest.mark.parametrize("name", [name for name in vars(errors) if name.startswith("EXIT_")])
def test_every_exit_code_is_in_a_man_page_or_is_a_bugs(name: str) -> None:
    everywhere = set.union(*(codes(path.name) for path in MAN.glob("*.[178]")))
    assert getattr(errors, name) in everywhere | {errors.EXIT_BUG}
