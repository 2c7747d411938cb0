"""Where a replay comes out otherwise than recorded, on purpose: for each transcript the row that says why, and what it is then.

``ROWS`` are the rows of docs/protocol.md's table of differences; a transcript that is not here must come out as recorded.
"""

from __future__ import annotations

import errno

from tests.peers.wire import file, last, repl
from tests.replay.outcome import NOTHING, Difference

#: Short name → the row.
ROWS = {
    "grants": "OPEN answers only from the grants made before connecting",
    "flags": "DOIT: MS_ bits that do more than restrict are EINVAL and the end",
    "code": "exit 0 only if mounted, else 1; BYEE's code is not passed on",
    "place": "MNTP: only the last positional word, pinned before connecting, no symbolic link",
    "nosuid": "nosuid and nodev always, root too",
    "options": "OPTS is parsed and judged by an allow-list",
    "fuseblk": "fuseblk: the source must be a granted block device",
    "device": "FUSE_KERN_DEVICE: only from root, and must be the fuse device",
    "argv": "the argv file's reader is bounded by the file",
    "died": "the server is gone before BYEE: what was mounted is unmounted",
    "descriptors": "descriptors on the server's packets are refused by the kernel (SO_PASSRIGHTS off), not dropped",
    "order": "what was said before TYPE counts as what was said after it",
    "one line": "one failure is one line, never none: nothing that follows from it",
    "named": "each sentence begins with the program's name (the draft's say `mount.service', or nothing)",
    "caged": "nothing falls back from a service to an uncaged server (docs/SECURITY.md, H)",
    "both": "a service speaks both dialects",
}

SAYS = "fuservicemount3: "
NO_MOUNT = SAYS + "fuse server said goodbye without mounting anything."
FAILED = SAYS + "fuse server failed mount, check dmesg/logs for details."
GONE = SAYS + "fuse server exited without saying goodbye!"
NO_POINT = SAYS + "missing mount point parameter"


def _not_granted(path: str) -> str:
    return f"{SAYS}{path}: Permission denied (the fuse server asks for a file that was not granted)"


def _wrong_place(path: str) -> str:
    return f"{SAYS}{path}: the mount point is the last argument, `/run/fuse-probe/mnt', and no other"


def _option(text: str) -> str:
    return f"{SAYS}mount option `{text}' is not one that a fuse server may set"


def _flags(bits: int) -> tuple[str]:
    return (f"{SAYS}mount: Invalid argument (the fuse server asks for mount flags {bits:#x})",)


def _named(*sentences: str) -> Difference:
    return Difference("named", stderr=tuple(SAYS + sentence for sentence in sentences))


_IMAGE = "/run/fuse-probe/img"
_CREATED, _NEW, _SECRET = "/run/fuse-probe/created", "/run/fuse-probe/umnt/new", "/run/fuse-probe/secret"
_CODE_ONLY = Difference("code", exit=1)
_GOODBYE_UNMOUNTED = Difference("code", exit=1, stderr=(NO_MOUNT,))

#: The recorded server against our helper.
HELPER = {
    # BYEE's code
    **dict.fromkeys(("bye-256", "bye-8", "bye-minus1", "hl-mountpoint-file", "hl-unknown-option", "null-mountpoint-dir"),
                    _CODE_ONLY),
    **dict.fromkeys(("cmd-max-size", "open-ok", "open-block-size-ignored", "ll-help-option", "ll-version-option"),
                    _GOODBYE_UNMOUNTED),
    "conf-long-line": Difference("code", exit=1, stderr=(SAYS + "reading /etc/fuse.conf: line 1 too long", NO_MOUNT)),
    "conf-no-newline": Difference(
        "code", exit=1, stderr=(SAYS + "reading /etc/fuse.conf: missing newline at end of file", NO_MOUNT)
    ),
    # A goodbye of the wrong size is refused like every command, and another one may follow.
    "cmd-bare-magic-bye": Difference(
        "code", exit=1, stderr=(SAYS + "bye command wrong size 4, expected 8", GONE), hung_up=False
    ),
    "cmd-bye-long": Difference(
        "code", exit=1, stderr=(SAYS + "bye command wrong size 12, expected 8", GONE), hung_up=False
    ),
    # The mount was made, so that is what we say, whatever the server says of itself.
    "user-dir-not-readable": Difference("code", exit=0, stderr=()),
    # OPEN
    "open-create": Difference("grants", exit=1, stderr=(_not_granted(_CREATED), NO_MOUNT),
                              packets={5: file(errno.EACCES, _CREATED)}, made=()),
    "open-one-char": Difference("grants", exit=1, stderr=(_not_granted("/"), NO_MOUNT),
                                packets={5: file(errno.EACCES, "/")}),
    "open-relative": Difference("grants", exit=1, stderr=(_not_granted("img"), NO_MOUNT),
                                packets={5: file(errno.EACCES, "img")}),
    "user-open-create": Difference("grants", exit=1, stderr=(_not_granted(_NEW), NO_MOUNT),
                                   packets={5: file(errno.EACCES, _NEW)}, made=()),
    "user-open-priv-file": Difference("grants", stderr=(_not_granted(_SECRET), FAILED)),
    # One positional word is the mount point, so there is no source to open.
    "hl-no-mountpoint-arg": Difference("grants", exit=1, stderr=(_not_granted(_IMAGE), FAILED),
                                       packets={5: file(errno.EACCES, _IMAGE)}),
    # DOIT
    "doit-flag-bind": Difference("flags", exit=1, stderr=_flags(0x1000), packets={11: repl(errno.EINVAL)}, mounts=()),
    "user-ms-bind": Difference("flags", exit=1, stderr=_flags(0x1000), packets={11: repl(errno.EINVAL)}, mounts=()),
    "doit-flag-unknown": Difference("flags", exit=1, stderr=_flags(0x40)),
    "doit-flag-strictatime": Difference(
        "nosuid", mounts=("/ /run/fuse-probe/mnt rw,nosuid,nodev - fuse.x s rw,user_id=0,group_id=0",)
    ),
    "doit-fuseblk-notblk": Difference(
        "fuseblk", stderr=(SAYS + "creating filesystem: Block device required", FAILED)
    ),
    "name-before-fsopen": Difference(
        "order",
        mounts=("/ /run/fuse-probe/mnt rw,nosuid,nodev,relatime - fuse.x early rw,user_id=0,group_id=0,max_read=8192",),
    ),
    # MNTP
    "mntp-any-argv": Difference(
        "place", exit=1, mounts=(),
        stderr=(SAYS + "mount point must be in command line arguments", _wrong_place("x"),
                _wrong_place("/run/fuse-probe/mnt2"), NO_POINT, NO_MOUNT),
        packets=dict.fromkeys((5, 7, 9, 13), repl(errno.EINVAL)),
    ),
    "mntp-symlink": Difference(
        "place", exit=1, mounts=(), packets={5: repl(errno.ELOOP), 11: repl(errno.EINVAL)},
        stderr=(SAYS + "/run/fuse-probe/lnk: is a symbolic link: name the directory that it points to", NO_POINT,
                NO_MOUNT),
    ),
    # OPTS
    "opts-bad-fsopened": Difference("options", stderr=(_option("bogus=1"), _option("bogusflag"), FAILED)),
    "opts-fd-rootmode-injection": Difference(
        "options", stderr=(_option("user_id=1000"),), packets={11: repl(errno.EINVAL)}
    ),
    # The rest
    "cmd-with-fd": Difference("descriptors", exit=1, stderr=(GONE,), packets={5: NOTHING}, refused=(4,)),
    "hello-reply-with-fd": Difference(
        "descriptors", exit=1, stderr=(SAYS + "wrong hello reply size 0, expected 8",),
        packets={2: NOTHING, 3: NOTHING}, refused=(1,),
    ),
    "kern-device-bad": Difference(
        "device", exit=1, packets={2: NOTHING, 3: NOTHING},
        stderr=(SAYS + "/etc/passwd: not the fuse device (character device 10:229)",),
    ),
    "kern-device-notchr": Difference(
        "device", exit=1, packets={2: NOTHING, 3: NOTHING}, stderr=(SAYS + "/dev/shm: Is a directory",)
    ),
    "srv-close-after-mount": Difference("died", mounts=()),
    # mount.fuse3 hands the type to /bin/sh as the name of a program.
    "mountfuse3-fallback": Difference(
        "caged", exit=2, stderr=("mount.fuse3: no safe filesystem driver for nonesuch available.",)
    ),
    "mountfuse3-stale": Difference(
        "caged", exit=2, stderr=("mount.fuse3: no safe filesystem driver for dead available.",)
    ),
    # The draft dialect
    "draft-args-check": _named("no safe filesystem driver for nonesuch available."),
    "draft-args-no-service": _named("no safe filesystem driver for nonesuch available."),
    "draft-args-dotted": _named("no safe filesystem driver for b available."),
    "draft-args-refused": _named("/run/filesystems/dead: Connection refused"),
    "draft-bye-0": _GOODBYE_UNMOUNTED,
    "draft-no-nul": _GOODBYE_UNMOUNTED,
    "draft-open-ok": _GOODBYE_UNMOUNTED,
    "draft-bye-5": _named("initialization failed: Input/output error"),
    "draft-cmd-runt": _named("wrong command packet size 3, expected at least 4"),
    "draft-cmd-unknown": _named("unrecognized packet 0x41424344"),
    # Its helper hands any filesystem type to mount(2).
    "draft-doit-any-fstype": _named("Invalid argument: `tmpfs' is no type of a FUSE filesystem"),
    "draft-doit-missing-all": _named("missing mount point parameter"),
    "draft-fuseblk": Difference("fuseblk", stderr=(SAYS + "creating filesystem: Block device required",),
                                packets={13: repl(errno.ENOTBLK)}),
    "draft-mntp-not-in-argv": Difference(
        "place", exit=1, mounts=(), packets={9: repl(errno.EINVAL), 11: NOTHING},
        stderr=(SAYS + "mount point must be in command line arguments",),
    ),
    "draft-mntp-twice": _named("mount point respecified!"),
    "draft-mountpoint-missing": _named("/run/fuse-probe/nomnt: No such file or directory"),
    "draft-name-twice": _named("source respecified!"),
    "draft-open-enoent": Difference("grants", exit=1, stderr=(_not_granted("/run/fuse-probe/none"), NO_MOUNT),
                                    packets={5: file(errno.EACCES, "/run/fuse-probe/none")}),
    "draft-open-flags": _named("initialization failed: Operation not permitted"),
    # The caller typed ro, and the server asks for writing all the same.
    "draft-opts": Difference(
        "grants", stderr=(f"{SAYS}{_IMAGE}: Read-only file system (it was granted for reading)",),
        packets={5: file(errno.EROFS, _IMAGE)},
    ),
    "draft-source-missing": _named("/run/fuse-probe/none: No such file or directory",
                                   "initialization failed: No such file or directory"),
    "draft-srv-bin-true": _named("wrong hello reply size 0, expected 8"),
    "draft-srv-close-after-files": Difference("one line", stderr=(GONE,)),
    "draft-type-twice": _named("fstype respecified!"),
    "draft-unknown-option": _named("initialization failed: Invalid argument"),
    "draft-x-upstream-server": _named("wrong hello reply size 0, expected 8"),
}  # fmt: skip

#: The recorded helper against a server on our library.
SERVICE = {
    "draft-x-upstream-helper": Difference(
        "both", packets={1: last()}, hung_up=False, stderr=("fuse: wrong service file reply size 0, expected 13",)
    ),
    "draft-x-upstream-server": Difference(
        "both", packets={1: last()}, hung_up=False, stderr=("fuse: wrong service file reply size 0, expected 13",)
    ),
    "lib-argv-nofd": Difference(
        "one line", stderr=("fuse: did not receive valid fd for `argv' but no error? (got 0 descriptors)",)
    ),
    "lib-argv-nogap": Difference("one line", stderr=("fuse: wrong service file reply size 0, expected 28",)),
    "passrights-server-refuses-late-fd": Difference(
        "one line", stderr=("fuse: wrong service fsopen reply size 0, expected 8",)
    ),
    "lib-argv-short": Difference(
        "argv", stderr=("fuse: service args file of 34 bytes says argc 50, expected 1..1024",)
    ),
}
