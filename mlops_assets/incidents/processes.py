"""Processes by a name that is never used twice: host, boot, process number and the moment when it began.

A process number is used again after a while; together with the time of its start, and the boot and PID namespace that
it belongs to, it is not. So a process of this machine is known to be dead as soon as it is.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Where process numbers mean the same as here: this boot and PID namespace; empty where that can't be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def started(pid: int) -> str:
    """When a process of this machine began, in the kernel's clock ticks since boot; empty when it can't be seen."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else fields[18]  # a zombie has ended, only its parent hasn't looked yet


def is_alive(pid: int, began: str) -> bool:
    """Whether the process of this machine that began then still runs."""
    now = started(pid)
    if now or Path(f"/proc/{pid}").exists():
        return now == began
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's, hidden from /proc
    return True


def this_process() -> str:
    """The name of this process, for a tag: host, number, start and machine."""
    return f"{platform.node()} {os.getpid()} {started(os.getpid())} {machine()}"


def lives(name: str | None) -> bool | None:
    """Whether the process of that name still runs; None when that can't be seen from here."""
    parts = (name or "").split(" ", 3)
    if len(parts) != 4 or not machine() or parts[3] != machine() or not parts[1].isdecimal():
        return None
    return is_alive(int(parts[1]), parts[2])
