"""Who listens on a socket in the file tree."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from fuservice.linux.holders import listeners


def test_whoever_listens_is_found_and_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "a socket with blanks"
    assert listeners(os.fspath(path)) == []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(os.fspath(path))
        assert listeners(os.fspath(path)) == []
        listening.listen()
        assert os.getpid() in listeners(os.fspath(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connected:
            connected.connect(os.fspath(path))
            assert listeners(os.fspath(path)) == [os.getpid()]
            assert listeners(os.fspath(tmp_path)) == []
    assert listeners(os.fspath(path)) == []
