"""What an attempt aims at: files, sockets and processes that stand outside of the cage, told to the probe inside as text."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Ground:
    """Pure data. Paths, process numbers and names are those that are seen from outside of the cage."""

    canary: str  # a world-readable file
    link: str  # a symbolic link
    drop: str  # a directory where the world may write; in it the file "victim"
    mount_point: str  # an empty directory
    program: str  # a program that says over the socket that it runs
    setuid_program: str  # one that is set-user-ID root, and says whether it is root; "" where we are not root
    image_path: str
    image_gid: int
    handle: str  # the canary's struct file_handle in hexadecimal digits, "" where its filesystem has none
    socket: str  # a listening SOCK_SEQPACKET socket
    abstract: str  # another one's abstract name, after "@"
    sockets: list[str]  # those of the well-known sockets that are on this machine
    tcp_port: int  # on which 127.0.0.1 listens
    victim: int  # a process of who proves
    server: int  # another server in a cage like ours
    groups: list[int]  # the supplementary groups of who proves
    host: str
    namespaces: dict[str, str]  # name → what /proc/self/ns/NAME points to, for who proves
    shared_memory: int  # a segment that the world may read
    queue: str  # the name of a POSIX message queue that does not exist
    terminal: bool  # whether who proves has a controlling terminal

    # The granted descriptors, as they are numbered in the process that holds them.
    image: int  # -1 outside: it is opened for each attempt anew
    fuse: int | None  # None where /dev/fuse cannot be opened

    def __init__(self, told: Mapping[str, object], image: int, fuse: int | None) -> None:
        """*told*: everything but the descriptors, by name."""
        self.__dict__.update(told)
        self.image, self.fuse = image, fuse

    def text(self, **more: object) -> bytes:
        """Return what a probe is told: all but the descriptors, and *more*."""
        told = {name: value for name, value in self.__dict__.items() if name not in ("image", "fuse")}
        return json.dumps({**told, **more}).encode()

    @classmethod
    def parse(cls, text: bytes, image: int, fuse: int | None) -> Ground:
        """Return what *text* tells, with the descriptors that came with it."""
        return cls(json.loads(text), image, fuse)
