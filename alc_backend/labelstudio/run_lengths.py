"""The run lengths of Label Studio's brush regions: read without making an image of them.

The format is that of rle-pack (https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack),
applied to the values of an image's pixels in RGBA: 32 bits with the number of values, 5 bits with
the size of a value minus 1, four times 4 bits with sizes of counts minus 1; then pieces of 1 bit
(whether one value is repeated), 2 bits (which size the count has), the count minus 1, and one
value, or as many as the count says. What is opaque belongs to the region.
"""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

_HEADER_BITS = 32 + 5 + 4 * 4
_VALUE_BITS = 8
_SIZES = (3, 4, 8, 16)
"""The bits of counts in what we write."""

_AT_ONCE = 2**16
"""How many pieces are written at once."""

OPAQUE = 127
"""Alpha above this is opaque: the pixel belongs to the region."""


def decode(packed: bytes, pixels: int) -> NDArray[np.int32]:
    """Where the regions' pixels begin and end, int32 (2·R,): begin, end, begin, end, …

    Positions count the image's pixels in raster order, from 0 to ``pixels``; each end is the first
    pixel that does not belong. Memory and time depend on ``packed`` alone. Raises ValueError when
    that is damaged or for an image of another size.
    """
    values = 4 * pixels
    if int.from_bytes(packed[:4], "big") != values:
        raise ValueError("a brush region's length does not fit the image's size")
    header = int.from_bytes(packed[:8].ljust(8, b"\0"), "big") >> (64 - _HEADER_BITS)
    if (header >> 16) & 31 != _VALUE_BITS - 1:
        raise ValueError("a brush region's run lengths are damaged (its values are not bytes)")
    sizes = [((header >> shift) & 15) + 1 for shift in (12, 8, 4, 0)]
    padded = packed + bytes(8)
    edges = array("i")
    opaque = False
    position, done = _HEADER_BITS, 0
    while done < values:
        if position >= 8 * len(packed):
            raise ValueError("a brush region's run lengths are damaged (they end too early)")
        window = int.from_bytes(padded[position >> 3 : (position >> 3) + 5], "big")
        window = (window << (position & 7)) & 0xFFFFFFFFFF
        size = sizes[(window >> 37) & 3]
        count = ((window >> (37 - size)) & ((1 << size) - 1)) + 1
        if window >> 39:
            value = (window >> (37 - size - _VALUE_BITS)) & 255
            position += 3 + size + _VALUE_BITS
            if done // 4 < (done + count) // 4 and (value > OPAQUE) != opaque:
                edges.append(done // 4)
                opaque = not opaque
        else:
            position += 3 + size
            alpha = _literals(padded, position, count)[3 - done % 4 :: 4] > OPAQUE
            position += count * _VALUE_BITS
            changes = np.flatnonzero(np.diff(alpha, prepend=opaque)) + done // 4
            edges.extend(changes.tolist())
            opaque ^= len(changes) % 2 == 1
        done += count
    if done > values or position > 8 * len(packed):
        raise ValueError("a brush region's run lengths are damaged (their lengths do not add up)")
    if opaque:
        edges.append(pixels)
    return np.array(edges, dtype=np.int32)


def encode(edges: NDArray[np.integer], pixels: int) -> bytes:
    """The run lengths of the pixels between ``edges``, (2·R,), which :func:`decode` returns.

    ``pixels`` is the number of the image's. The bytes are those that Label Studio's library makes
    of the same mask, which may end with a byte of zeros more.
    """
    lengths = 4 * np.diff(edges.astype(np.int64), prepend=0, append=pixels)
    values = np.where(np.arange(len(lengths)) % 2 == 1, 255, 0)
    longest = 1 << _SIZES[-1]
    pieces = -(-lengths // longest)  # none of length 0
    counts = np.full(pieces.sum(), longest)
    counts[np.cumsum(pieces)[pieces > 0] - 1] = (lengths - (pieces - 1) * longest)[pieces > 0]
    which = np.searchsorted([1 << size for size in _SIZES], counts)
    sizes = np.array(_SIZES)[which]
    codes = (4 | which) << sizes | (counts - 1)
    codes = codes << _VALUE_BITS | np.repeat(values, pieces)
    header = 4 * pixels
    for value, size in ((_VALUE_BITS - 1, 5), *((size - 1, 4) for size in _SIZES)):
        header = header << size | value
    bits = [_bits(np.array([header]), np.array([_HEADER_BITS]))]
    widths = 3 + sizes + _VALUE_BITS
    for first in range(0, len(codes), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        bits.append(_bits(codes[part], widths[part]))
    return np.packbits(np.concatenate(bits)).tobytes()


def _bits(codes: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The lowest ``widths`` bits of each of the codes, one after the other, uint8 of 0 and 1."""
    unpacked = np.unpackbits(codes.astype(">i8").view(np.uint8).reshape(-1, 8), axis=1)
    bits: NDArray[np.uint8] = unpacked[np.arange(64) >= 64 - widths[:, None]]
    return bits


def mask(edges: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask, bool (H, W), of what :func:`decode` returns."""
    lengths = np.diff(edges, prepend=0, append=shape[0] * shape[1])
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(shape)


def _literals(packed: bytes, position: int, count: int) -> NDArray[np.uint8]:
    """So many bytes, uint8 (count,), that begin at a bit of ``packed``."""
    first, shift = position >> 3, position & 7
    if first + count >= len(packed):
        raise ValueError("a brush region's run lengths are damaged (they end too early)")
    found = np.frombuffer(packed, dtype=np.uint8, count=count + 1, offset=first)
    if shift == 0:
        return found[:-1]
    return (found[:-1] << np.uint8(shift)) | (found[1:] >> np.uint8(8 - shift))
