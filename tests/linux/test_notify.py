"""Telling the service manager: by path, by abstract name, to nobody."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fuservice.linux.notify import Manager


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_the_manager_hears_what_is_told(tmp_path: Path, abstract: bool) -> None:  # noqa: FBT001
    name = f"@fuservice-test-{os.getpid()}" if abstract else f"{tmp_path}/notify"
    environment = {"NOTIFY_SOCKET": name}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        told = Manager(environment)
        assert environment == {}
        told.ready("serving ext4")
        assert manager.recv(100) == b"READY=1\nSTATUS=serving ext4\n"
        told.reloading()
        kind, clock, status = manager.recv(100).decode().splitlines()
        assert (kind, status) == ("RELOADING=1", "STATUS=reloading") and clock.startswith("MONOTONIC_USEC=")
        told.stopping("waiting for 2 servers")
        assert manager.recv(100) == b"STOPPING=1\nSTATUS=waiting for 2 servers\n"


def test_a_manager_that_is_gone_or_busy_or_nobody_is_no_reason_to_fail(tmp_path: Path) -> None:
    Manager({}).ready("")
    Manager({"NOTIFY_SOCKET": f"{tmp_path}/nobody"}).ready("")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{tmp_path}/busy")
        told = Manager({"NOTIFY_SOCKET": f"{tmp_path}/busy"})
        for _ in range(1_000):  # far more than its queue holds
            told.ready("")
