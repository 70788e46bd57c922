"""Counter-based random streams: every draw is a pure function of what it is for.

A stream is named by (seed, purpose, counters...), so results do not depend on batch size, order, worker or machine
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; numpy's Philox behind a SeedSequence).
"""

import hashlib

import numpy as np
import numpy.typing as npt

#: What a stream is for. Part of its name, so that no two uses ever share numbers; others get a number by hash.
PURPOSES = {
    "noise": 1,
    "action": 2,
    "crop": 3,
    "timestep": 4,
    "degrade": 5,
    "select": 6,
    "start": 7,
    "judge": 8,
    "grain": 9,
    "project": 10,
    "stop": 11,
}


def stable_id(name: str) -> int:
    """A positive 63-bit integer that names `name` on every machine (the first bits of its SHA-256)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def stream(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """The generator of one stream. `counters` are non-negative integers, e.g. (image_id, rollout, step)."""
    words = [seed, PURPOSES.get(purpose) or stable_id(purpose) & 0xFFFFFFFF]
    for counter in counters:
        words += [counter & 0xFFFFFFFF, counter >> 32]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def normal(shape: tuple[int, ...], seed: int, purpose: str, *counters: int) -> npt.NDArray[np.float32]:
    """Standard normal noise of `shape`, float32."""
    return stream(seed, purpose, *counters).standard_normal(shape, dtype=np.float32)


#: Side of the blocks, in latent pixels, that noise is drawn in, and an offset that keeps block numbers positive.
BLOCK, OFFSET = 16, 1 << 20


def block_noise(
    shape: tuple[int, ...], corner: tuple[int, int], seed: int, purpose: str, *counters: int
) -> npt.NDArray[np.float32]:
    """Standard normal noise (C, h, w), float32, of the part of an endless plane whose corner is (row, column).

    The plane is drawn in blocks with a stream each, so that two parts that overlap agree where they do.
    """
    channels, height, width = shape
    (top, left), spans = corner, []
    for begin, size in ((top, height), (left, width)):
        spans.append(range(begin // BLOCK, -(-(begin + size) // BLOCK)))
    plane = np.concatenate(
        [
            np.concatenate(
                [
                    normal((channels, BLOCK, BLOCK), seed, purpose, *counters, row + OFFSET, column + OFFSET)
                    for column in spans[1]
                ],
                axis=2,
            )
            for row in spans[0]
        ],
        axis=1,
    )
    y, x = top - spans[0].start * BLOCK, left - spans[1].start * BLOCK
    return plane[:, y : y + height, x : x + width]
