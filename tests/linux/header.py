"""What the C compiler says of numbers and layouts: one C program for all, compiled once."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

#: Layouts are asked for as "sizeof(struct x)" and "offsetof(struct x, y)"; numbers as themselves.
INCLUDES = (
    "stdio.h", "stddef.h", "errno.h", "fcntl.h", "limits.h", "signal.h", "linux/capability.h", "linux/fs.h",
    "linux/loop.h", "linux/nsfs.h", "linux/magic.h", "linux/major.h",
    "linux/mount.h", "linux/openat2.h", "linux/prctl.h", "asm/unistd.h", "asm/socket.h", "sys/socket.h", "sys/statfs.h",
    "sys/time.h", "sys/un.h", "sys/uio.h",
)  # fmt: skip

#: glibc's own header of mounts, which may not be included beside linux/mount.h before glibc 2.37.
MOUNT_INCLUDES = ("stdio.h", "sys/mount.h")


@functools.cache
def compile_and_ask(
    expressions: tuple[str, ...], directory: Path, includes: tuple[str, ...] = INCLUDES
) -> dict[str, int]:
    """Return the value of each C expression, as long long."""
    lines = [f"#include <{header}>" for header in includes]
    lines += ["int main(void) {", *(f'  printf("%lld\\n", (long long)({e}));' for e in expressions), "  return 0;", "}"]
    source, program = directory / "ask.c", directory / "ask"
    source.write_text("#define _GNU_SOURCE\n" + "\n".join(lines) + "\n")
    subprocess.run(["gcc", "-o", program, source], check=True, capture_output=True, text=True, timeout=60)
    answers = subprocess.run([program], check=True, capture_output=True, text=True, timeout=10).stdout.split()
    return dict(zip(expressions, map(int, answers), strict=True))
