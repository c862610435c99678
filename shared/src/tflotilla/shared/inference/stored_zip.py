"""Files and arrays in a zip whose bytes depend on nothing but them: what golden vectors and sample sets are kept in.

Rules it keeps: equal contents give equal bytes; a reader unpickles nothing and allocates no more than the file's size.
What it does NOT do: decide which members there may be.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: numpy's own reader and writer of one array; it has no types.
_NPY: Any = np.lib.format
#: The same date in every file: zip can't do without one.
_DATE = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o644 << 16
_UNIX = 3
#: What reading a foreign zip raises; callers turn it into an error of their own.
ERRORS = (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile)


def add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Append one member, stored: two zlibs may deflate the same bytes differently."""
    member = zipfile.ZipInfo(name, _DATE)
    member.create_system, member.external_attr = _UNIX, _FILE_MODE
    archive.writestr(member, content)


def add_tensor(archive: zipfile.ZipFile, name: str, tensor: NDArray[Any]) -> None:
    """Append one array in .npy format 1.0. Raises ValueError for Python objects."""
    body = io.BytesIO()
    _NPY.write_array(body, tensor, version=(1, 0), allow_pickle=False)
    add(archive, name, body.getvalue())


def read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Return a member that `add` wrote. Raises one of `ERRORS`."""
    if member.compress_type != zipfile.ZIP_STORED:
        message = f"{member.filename} is compressed"
        raise ValueError(message)
    return archive.read(member)


def read_tensor(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Return an array that `add_tensor` wrote. Raises one of `ERRORS`."""
    body = io.BytesIO(read(archive, member))
    if _NPY.read_magic(body) != (1, 0):
        message = f"{member.filename} is not of .npy format 1.0"
        raise ValueError(message)
    shape, _, dtype = _NPY.read_array_header_1_0(body)
    # The header could claim terabytes; what it describes must be what is there.
    if dtype.hasobject or int(np.prod(shape, dtype=object)) * dtype.itemsize != len(body.getvalue()) - body.tell():
        message = f"{member.filename} does not hold what its header says"
        raise ValueError(message)
    body.seek(0)
    tensor: NDArray[Any] = _NPY.read_array(body, allow_pickle=False)
    return tensor
