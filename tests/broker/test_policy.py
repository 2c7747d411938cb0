"""The broker's policy: the first line that is about a caller decides, and an error refuses everybody."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from fuservice.broker import policy
from fuservice.errors import PolicyError
from tests.support.capabilities import AS_NOBODY, PROGRAMS, REPOSITORY

USERS = {"alice": 1000, "bob": 1001}
GROUPS = {"staff": 50}


def parse(text: str) -> policy.Policy:
    """Return the policy in *text*, on a system with few names."""
    return policy.parse(text, uid_of=USERS.__getitem__, gid_of=GROUPS.__getitem__)


EXAMPLE = """# who may mount here
deny user bob
allow group staff mounts=3 options=rw,allow_other
allow user 1000 options=
"""


@pytest.mark.parametrize(
    ("uid", "gids", "line", "mounts", "words"),
    [
        (1000, {1000}, 4, 32, set()),
        (1000, {1000, 50}, 3, 3, {"rw", "allow_other"}),
        (7, {50}, 3, 3, {"rw", "allow_other"}),
    ],
)
def test_the_first_line_decides(uid: int, gids: set[int], line: int, mounts: int, words: set[str]) -> None:
    rule = parse(EXAMPLE).rule(uid, gids)
    assert (rule.line, rule.mounts, set(rule.words)) == (line, mounts, words)


@pytest.mark.parametrize(
    ("uid", "gids", "words"), [(1001, {50}, "line 2"), (7, {7}, "no rule for you"), (0, {0}, "no rule")]
)
def test_others_are_refused(uid: int, gids: set[int], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        parse(EXAMPLE).rule(uid, gids)


def test_a_line_without_more_gives_all_words() -> None:
    rule = parse("allow everybody").rule(5, {5})
    assert (rule.mounts, set(rule.words)) == (32, set(policy.WORDS))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("permit everybody", "expected `allow' or `deny'"),
        ("allow", "expected `allow' or `deny'"),
        ("allow users alice", "expected `allow' or `deny'"),
        ("allow user", "expected `allow' or `deny'"),
        ("allow user carol", "there is no user `carol'"),
        ("allow group alice", "there is no group `alice'"),
        ("allow user 4294967295", "beyond what ids are"),
        ("deny everybody mounts=1", "a denial has no options"),
        ("allow everybody mounts", "`mounts': expected"),
        ("allow everybody mount=1", "`mount=1': expected"),
        ("allow everybody mounts=-1", "expected a number"),
        ("allow everybody mounts=", "expected a number"),
        ("allow everybody mounts=1000000", "expected a number"),
        ("allow everybody mounts=1 mounts=2", "twice"),
        ("allow everybody options=suid", "`options=suid': expected words of"),
        ("allow everybody options=rw options=exec", "twice"),
        ("allow everybody ro", "`ro': expected"),
    ],
)
def test_what_is_no_rule_is_named_with_its_line(line: str, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(f"# first\nallow user alice\n{line}\n")
    assert str(caught.value).startswith(f"{policy.PATH}:3: ") and words in str(caught.value)


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    ("content", "mode", "owner", "words"),
    [
        (b"allow nobody\n", 0o644, 0, ":1: expected"),
        (b"allow everybody\n", 0o666, 0, "chmod go-w"),
        (b"allow everybody\n", 0o644, 5, "chown root"),
        (b"\xff\n", 0o644, 0, "not UTF-8"),
        (b"#" * (policy.LARGEST + 1), 0o644, 0, "over 65536 bytes"),
    ],
)
def test_a_file_that_cannot_be_trusted_or_read_refuses_everybody(
    tmp_path: Path, content: bytes, mode: int, owner: int, words: str
) -> None:
    path = tmp_path / "broker.conf"
    path.write_bytes(content)
    path.chmod(mode)
    os.chown(path, owner, 0)
    loaded = policy.load(os.fspath(path))
    assert words in loaded.error
    with pytest.raises(PolicyError, match="its log says where"):
        loaded.rule(0, {0})


def test_without_the_file_everybody_may(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "broker.conf")
    assert policy.load(path).rule(12345, {1}).mounts == policy.MOUNTS
    assert policy.stamp(path) is None


@pytest.mark.needs("root")
def test_the_file_is_read_with_the_system_s_names(tmp_path: Path) -> None:
    path = tmp_path / "broker.conf"
    path.write_text("allow user root\n")
    before = policy.stamp(os.fspath(path))
    assert policy.load(os.fspath(path)).rule(0, {0}).line == 1
    path.write_text("allow group root  # now\n")
    assert policy.stamp(os.fspath(path)) != before and policy.has_changed(before, os.fspath(path))
    assert policy.load(os.fspath(path)).rule(7, {0}).group


@pytest.mark.needs("root")
def test_a_change_that_cannot_be_seen_is_none(tmp_path: Path) -> None:
    """Or the broker would end at every connection where its user may not search the directory."""
    path = tmp_path / "broker.conf"
    path.touch()
    before = policy.stamp(os.fspath(path))
    assert not policy.has_changed(before, os.fspath(path))
    code = "import sys; from fuservice.broker.policy import has_changed; print(has_changed((1, 2, 3), sys.argv[1]))"
    for mode, answer in ((0o755, "True"), (0o700, "False")):
        place = Path(tempfile.mkdtemp(prefix="fuservice-policy-"))
        place.chmod(mode)
        (place / "broker.conf").touch()
        words = [*AS_NOBODY, "env", "-C", os.fspath(REPOSITORY)]
        done = subprocess.run(
            [*words, PROGRAMS / "python", "-c", code, place / "broker.conf"], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{answer}\n"
        (place / "broker.conf").unlink()
        place.rmdir()
    path.unlink()
    assert policy.has_changed(before, os.fspath(path))
