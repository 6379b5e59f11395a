"""Blocks of weights with a scale each, packed as ONNX Runtime's own operators read them."""

import numpy as np
import numpy.typing as npt

from compression.quantize.linear import Floats

_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)  # candidates for the range, as parts of the largest value


def quantize_blocks(rows: Floats, bits: int, block_size: int) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Symmetric numbers of 8 or 4 bits; of several ranges the one with the least squared error, block by block.

    The largest value of a block lies on the side that has one level more.

    Args:
        rows: (rows, width); a width that is no multiple of `block_size` is padded with zeros.

    Returns:
        (rows, blocks, bytes) with the level of zero at half of the range and, of 4 bits, two numbers in a byte, the
        first one low; and the scales, (rows, blocks).
    """
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % block_size))).reshape(len(rows), -1, block_size)
    largest = np.take_along_axis(padded, np.abs(padded).argmax(axis=-1, keepdims=True), axis=-1)
    middle = 2 ** (bits - 1)
    levels = np.empty(padded.shape, np.uint8)
    scales = np.empty_like(largest)
    least = np.full_like(largest, np.inf)
    for shrink in _SHRINKS:
        candidate = np.where(largest != 0, shrink * largest / -middle, 1.0).astype(np.float32)
        rounded = np.clip(np.rint(padded / candidate), -middle, middle - 1)
        error = np.square(rounded * candidate - padded).sum(axis=-1, keepdims=True)
        better = error < least
        least = np.where(better, error, least)
        scales = np.where(better, candidate, scales)
        levels = np.where(better, rounded + middle, levels).astype(np.uint8)
    packed = levels[..., ::2] | levels[..., 1::2] << np.uint8(4) if bits == 4 else levels
    return packed, scales[..., 0]
