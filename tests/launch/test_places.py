"""Where sockets may lie, what may be in their way, and which names they may have."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuservice.errors import PolicyError, SystemCallError, UsageError
from fuservice.launch.activator import Activator
from fuservice.launch.places import LONGEST_NAME, check_name, clear_stale, prepare_directory
from fuservice.launch.state import States
from fuservice.linux.listener import Listener
from fuservice.linux.notify import Manager


@pytest.mark.parametrize("name", ["ext4", "a", "A-Z_a.z+0", "x" * 64, "...", "-"])
def test_names_of_types(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a b", "x" * 65, "é", "a\n", "a\0", "*", "٣"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UsageError) as error:
        check_name(name)
    assert f"`{name}' is no type name: expected 1 to 64 of the characters" in str(error.value)
    with pytest.raises(UsageError):
        Activator({name: ["nothing"]}, "/nowhere", log=print, states=States(""), manager=Manager({}), facts={})


@settings(deadline=None)
@given(st.text())
def test_a_name_that_is_accepted_is_a_name_in_a_directory(name: str) -> None:
    try:
        check_name(name)
    except UsageError:
        return
    assert Path("/directory", name).parent == Path("/directory")
    assert Path("/directory", name).resolve() == Path("/directory", name)
    assert len(os.fsencode(name)) <= LONGEST_NAME


def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    prepare_directory(f"{tmp_path}/a/b")
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o755
    prepare_directory(f"{tmp_path}/a/b")


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "sockets"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(PolicyError) as error:
        prepare_directory(os.fspath(place))
    assert f"{place}: has owner {os.geteuid()} and mode {mode:o}" in str(error.value)
    assert "(chmod go-w)" in str(error.value)


@pytest.mark.needs("root")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "sockets"
    place.mkdir()
    os.chown(place, 1234, 1234)
    with pytest.raises(PolicyError, match="has owner 1234"):
        prepare_directory(os.fspath(place))


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(SystemCallError, match="file: File exists"):
        prepare_directory(f"{tmp_path}/file")
    with pytest.raises(PolicyError, match="link: is not a directory"):
        prepare_directory(f"{tmp_path}/link")
    with pytest.raises(SystemCallError, match="Not a directory"):
        prepare_directory(f"{tmp_path}/file/below")


@pytest.fixture
def stale(tmp_path: Path) -> Path:
    """Give the path of a socket on which nobody listens any more."""
    listener = Listener(f"{tmp_path}/stale", 0o600)
    listener.close()
    return Path(listener.path)


def test_a_stale_socket_is_removed(stale: Path) -> None:
    clear_stale(os.fspath(stale))
    assert not stale.exists()
    clear_stale(os.fspath(stale))


def test_a_socket_on_which_somebody_listens_stays(tmp_path: Path) -> None:
    listener = Listener(f"{tmp_path}/live", 0o600)
    with pytest.raises(PolicyError, match="live: somebody listens there already"):
        clear_stale(listener.path)
    assert Path(listener.path).is_socket()
    listener.close()


def test_a_socket_of_another_kind_stays(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(f"{tmp_path}/stream")
        other.listen()
        with pytest.raises(SystemCallError, match="stream: Protocol wrong type for socket"):
            clear_stale(f"{tmp_path}/stream")


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_stays(tmp_path: Path, stale: Path, kind: str) -> None:
    path = tmp_path / "way"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(stale)
    with pytest.raises(PolicyError, match="way: is in the way, and is not a socket"):
        clear_stale(os.fspath(path))
    assert path.is_symlink() or path.exists()
