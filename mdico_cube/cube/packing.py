"""A recipe's codec in, what Zarr v3 and Zarr v2 call it out: how pixels are packed.

Bytes are shuffled first, the high ones together and the low ones together, because neighbours share their high bytes.
What is left is packed by LZ4, which is unpacked faster, or by Zstandard, which is a sixth to a third smaller. Both go
by Blosc, which carries them out.
"""

from __future__ import annotations

from typing import Any

import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Codec

LEVELS = {"lz4": 9, "zstd": 3}
"""Codec -> its level where the recipe names none: what is smaller at a higher one is not worth its time."""
_MOST = 9
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


def packer(codec: Codec = "lz4", level: int | None = None) -> BloscCodec:
    """The Zarr v3 codec of a recipe's `store.codec` and `store.level`; None = the codec's own."""
    return BloscCodec(cname=codec, clevel=min(level or LEVELS[codec], _MOST), shuffle="shuffle")


def packed_as(array: zarr.Array[Any]) -> str:
    """What a stored array is packed by: "lz4", "zstd" or another codec's name; empty where it is not packed."""
    names = [one.cname.value if isinstance(one, BloscCodec) else type(one).__name__ for one in array.compressors]
    return "".join(names).removesuffix("Codec").lower()


def zarr2_codec(array: zarr.Array[Any]) -> dict[str, Any] | None:
    """What Zarr v2 calls the codec of a Zarr v3 array's chunks; None where they are not packed.

    Raises:
        MdicoError: Zarr v2 has no name for it.
    """
    (codec, *more) = array.compressors or (None,)
    if codec is None:
        return None
    if isinstance(codec, BloscCodec) and not more:
        shuffle = _SHUFFLES[codec.shuffle.value]
        return {"id": "blosc", "cname": codec.cname.value, "clevel": codec.clevel, "shuffle": shuffle, "blocksize": 0}
    if isinstance(codec, ZstdCodec) and not more:
        return {"id": "zstd", "level": codec.level}
    raise MdicoError(
        f"{array.path}: is packed by {packed_as(array)}, which cannot be referred to. Export a .zarr or .tif."
    )
