"""The format of the index of a prepared set: one file of columns, of which only what is looked at is in memory.

It is a safetensors file whose arrays are mapped, not read, so that a set of a million videos opens at once. A video's
record is put together when it is asked for. What a set has few of (labels, splits, heads of files) stands once, in
tables, and the columns hold positions in them. The metadata of the file has one entry, `cacl`, with the format, the
tables, digests, and what else is known of the set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

FORMAT = "cacl prepared set 1"
DTYPES = {"U8": np.uint8, "U32": np.uint32, "I32": np.int32, "I64": np.int64, "F64": np.float64}
"""The types of safetensors that are used here."""
NO_VALUE = -1
"""In a column of positions, this stands for no value of the table."""
HASH_BYTES = 16
"""The length of a content hash in bytes."""


def digest_columns(columns: Iterable[tuple[str, np.dtype[Any], Iterable[bytes]]], text: str) -> str:
    """Computes a digest that tells whether columns and a text are what was written.

    Args:
        columns: The name, the type and the bytes of each column, in parts; in any order.
        text: A text that the digest also covers.

    Returns:
        BLAKE2b, 128 bits as hex digits.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=HASH_BYTES)
    for name, dtype, parts in sorted(columns, key=lambda column: column[0]):
        digest.update(f"{name} {dtype.str}".encode() + b"\0")
        for part in parts:
            digest.update(part)
    return digest.hexdigest()
