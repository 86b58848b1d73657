"""Whose fault an error is that a reader raises: the file's, which quarantines its period, or the machine's.

Readers raise many types for a damaged file, and the same types for a full disk; a stream of rows wraps DuckDB's errors
into Arrow's. So the types alone do not tell.
"""

from __future__ import annotations

import errno
import os
import re

import duckdb
import pyarrow as pa

FILE_ERRORS = (duckdb.Error, pa.ArrowException, OSError, UnicodeDecodeError, MemoryError)
"""What readers raise for a file that they can't read, among other things."""

# More than any machine has: the size was read off a damaged page.
ABSURD_BYTES = 1 << 42

_NOT_THE_FILE = (
    *(duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException, duckdb.PermissionException),
    *(duckdb.OutOfMemoryException, duckdb.InterruptException, duckdb.InternalException),
)
# DuckDB passes the operating system's words on, without its number; a stream of rows passes nothing but words on.
_ERRNOS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENXIO),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ESTALE),
    *(errno.EBUSY, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ENAMETOOLONG),
)
_OF_THE_MACHINE = re.compile(
    r"(?i)^(out of memory|interrupt|internal|permission|http) error|failed to offload|max_temp_directory_size|"
    r"no files found|cannot open file|" + "|".join(re.escape(os.strerror(number)) for number in _ERRNOS)
)


class UnreadableSource(Exception):
    """A source that turned out to be damaged while its rows were read."""


def is_of_the_file(error: BaseException) -> bool:
    """Whether the file that is being read is to blame for an error, not the machine or the query."""
    if isinstance(error, UnicodeDecodeError):
        return True
    if isinstance(error, MemoryError) and not isinstance(error, duckdb.Error):
        size = re.search(r"size (\d+)", str(error))
        return bool(size and int(size[1]) > ABSURD_BYTES)
    if isinstance(error, OSError):
        # The operating system's own errors have a number; those of decoders have none.
        return error.errno is None and not _OF_THE_MACHINE.search(str(error))
    if isinstance(error, pa.ArrowCancelled | pa.ArrowNotImplementedError):
        return False
    if isinstance(error, duckdb.Error):
        return not isinstance(error, _NOT_THE_FILE) and not _OF_THE_MACHINE.search(str(error))
    return isinstance(error, pa.ArrowException) and not _OF_THE_MACHINE.search(str(error))
