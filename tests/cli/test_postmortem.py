"""Which of a journal's lines tells how a server ended."""

from __future__ import annotations

import pytest

from fuservice.cli import postmortem
from fuservice.cli.postmortem import explain, how_it_ended, refused, unit
from fuservice.errors import RemoteProtocolError

EXIT, SUCCESS = postmortem._ENDS
INSTANCE = "fuservice-ext4@3-4711-0.service"


def said(text: str, instance: str = INSTANCE) -> dict[str, str]:
    """Return a line of a unit's own."""
    return {"MESSAGE": text, "_SYSTEMD_UNIT": instance}


def systemd(text: str, message: str = EXIT, instance: str = INSTANCE) -> dict[str, str]:
    """Return a line of systemd's about a unit."""
    return {"MESSAGE": f"{instance}: {text}", "UNIT": instance, "_SYSTEMD_UNIT": "init.scope", "MESSAGE_ID": message}


LABEL = "ext4[17] on /mnt/a: "
EXITED = systemd("Main process exited, code=exited, status=1/FAILURE")


@pytest.mark.parametrize(
    ("entries", "how"),
    [
        ([], ""),
        ([said(f"{LABEL}still here")], ""),
        ([said("ext4[17]: no image"), said("ext4[17]: server ended with exit status 1")], "no image"),
        ([said("ext4[17]: server ended with exit status 3"), EXITED], "server ended with exit status 3"),
        ([said(f"{LABEL}words"), said(f"{LABEL}server ended with signal 11")], "server ended with signal 11"),
        ([said("ext4[1]: killed: tried"), said("ext4[1]: server ended with signal 9"), EXITED], "killed: tried"),
        ([EXITED], "Main process exited, code=exited, status=1/FAILURE"),
        ([said("theirs: says: it"), EXITED], "theirs: says: it"),
        ([systemd("Deactivated successfully.", SUCCESS)], "Deactivated successfully."),
        ([systemd("Main process", instance="a@1.service"), said("ext4[2]: new", "a@2.service")], ""),
        ([{"MESSAGE": "x: gone", "USER_UNIT": "a@1.service", "MESSAGE_ID": EXIT}], "gone"),
    ],
)
def test_the_line_that_tells_it(entries: list[dict[str, str]], how: str) -> None:
    assert how_it_ended(entries) == how


def test_the_unit_is_what_a_line_is_about() -> None:
    assert {unit(EXITED), unit(said("x"))} == {INSTANCE}
    assert (
        unit({"MESSAGE": "x", "_SYSTEMD_USER_UNIT": "a.service", "_SYSTEMD_UNIT": "user@1000.service"}) == "a.service"
    )


def test_systemd_refuses_with_a_warning() -> None:
    lines = [{"MESSAGE": "full", "PRIORITY": "4"}, {"MESSAGE": "listening", "PRIORITY": "6"}]
    assert (refused(lines), refused(lines[1:])) == ("full", "")


def test_of_a_socket_of_somebody_else_nothing_is_said() -> None:
    error = RemoteProtocolError("fuse server exited without saying goodbye!")
    assert explain(error, "/no/such/socket") is error
