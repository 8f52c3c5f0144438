"""Replacing a file, completely or not at all, whenever the process is killed."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable
from typing import Any


def replace_file(where: str, target: str, parts: Iterable[Any]) -> None:
    """Write a new file beside the target, and put it into its place when it is on the disk.

    Args:
        where: Function to name in an error.
        target: Path of the file, links resolved.
        parts: Bytes to write, one after the other.
    """
    folder, name = os.path.split(target)
    draft = ""
    try:
        draft, descriptor = _new_draft(folder, name)
        with open(descriptor, "wb") as file:
            if os.path.exists(target):
                os.fchmod(descriptor, stat.S_IMODE(os.stat(target).st_mode))
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(descriptor)
            os.replace(draft, target)
    except OSError as error:
        problem = f"{where}: {target!r} must be writable, got: {error.strerror or error}. It is as it was."
        raise OSError(error.errno, problem) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(draft)
    _flush_folder(folder)
    _remove_leftovers(folder, name)


def _new_draft(folder: str, name: str) -> tuple[str, int]:
    """A file that is locked for as long as this process writes it, so that others do not take it for a leftover."""
    while True:
        draft = os.path.join(folder, f".{_stem(folder, name)}.{secrets.token_hex(4)}.saving")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks, where leftovers stay
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return draft, descriptor
        os.close(descriptor)


def _stem(folder: str, name: str) -> str:
    """As much of a name as leaves room for the rest of that of a draft."""
    room = os.pathconf(folder or ".", "PC_NAME_MAX") - len("..01234567.saving")
    while len(os.fsencode(name)) > room:
        name = name[:-1]
    return name


def _flush_folder(folder: str) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot flush folders
            raise
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: str, name: str) -> None:
    """Remove what killed processes left behind."""
    entries, stem = [], _stem(folder, name)
    with contextlib.suppress(OSError):  # a folder that may be written to, but not looked into
        entries = os.listdir(folder)
    for entry in entries:
        if re.fullmatch(rf"\.{re.escape(stem)}\.[0-9a-f]{{8}}\.saving", entry):
            with contextlib.suppress(OSError), open(os.path.join(folder, entry), "ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(file.name)
