"""Classic BPF, as far as our filters use it: run on a made-up system call, for any machine."""

from __future__ import annotations

import struct

INSTRUCTION = struct.Struct("HBBI")
DATA = struct.Struct("=iIQ6Q")  # struct seccomp_data


def run(program: bytes, number: int, architecture: int, arguments: tuple[int, ...] = ()) -> int:
    """Return what *program* answers."""
    data = DATA.pack(number, architecture, 0, *(*arguments, *[0] * 6)[:6])
    code = list(INSTRUCTION.iter_unpack(program))
    at = accumulator = 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        match operation:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                accumulator = int.from_bytes(data[k : k + 4], "little")
            case 0x54:  # BPF_ALU | BPF_AND | BPF_K
                accumulator &= k
            case 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
                at += if_true if accumulator == k else if_false
            case 0x06:  # BPF_RET | BPF_K
                return int(k)
            case _:
                raise AssertionError(f"our filters have no {operation:#x}")
