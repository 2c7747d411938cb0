"""A transient unit says what the template says: the same walls and budgets, in the words of systemd-run(1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fuservice.units import transient
from fuservice.units.service import sections, service
from fuservice.units.user import user_sections, user_service
from tests.units.test_service import PROFILE, PROGRAM, VERSIONS, directives

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuservice.units.text import Directive

#: The one directive that systemd does not take over its bus, and what stands in its place.
FILE_ONLY = ("RestrictAddressFamilies", "none")
INSTEAD = ("SystemCallFilter", "~socket")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("text", "parts"), [(service, sections), (user_service, user_sections)], ids=["system", "user"]
)
def test_it_has_the_directives_of_the_template_and_no_other(
    version: int, text: Callable[..., str], parts: Callable[..., dict[str, list[Directive]]]
) -> None:
    words = transient.properties(parts("ext4", PROFILE, PROGRAM), "abc-0", version)
    made = [word.removeprefix("--property=").partition("=")[::2] for word in words]
    told = [(name, value.replace("%i", "abc-0")) for name, value in directives(text("ext4", PROFILE, PROGRAM, version))]
    expected = [one for one in told if one[0] not in ("ExecStart", "OnFailure") and one != FILE_ONLY] + [INSTEAD] * (
        FILE_ONLY in told
    )
    assert made == expected and len(words) > 25
    line = dict(told)["ExecStart"]
    assert transient.command(parts("ext4", PROFILE, PROGRAM), "abc-0") == line.split()


def test_only_what_is_known_is_spelled_in_another_way() -> None:
    assert {"=".join(FILE_ONLY): "=".join(INSTEAD)} == transient.SPELLED


def test_its_name_is_that_of_no_instance_of_a_template() -> None:
    """An installed template would stand in the way of a transient unit of such a name (systemd refuses that)."""
    assert transient.unit_name("ext4", "0123") == "fuservice-ext4-0123.service"
