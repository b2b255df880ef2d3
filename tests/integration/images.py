"""Images for the tests, made here so that a clone needs no data set: fluorescent nuclei, spheroids, and broken files."""
import io
import struct
import zlib

import numpy as np
from PIL import Image


def _disk_field(shape, centres, radii, edge=1.5):
    yy, xx = np.mgrid[0:shape[0], 0:shape[1]].astype(np.float32)
    field = np.zeros(shape, np.float32)
    for (cy, cx), r in zip(centres, radii):
        d = np.hypot(yy - cy, xx - cx)
        field = np.maximum(field, 1 / (1 + np.exp(np.clip((d - r) / edge, -50, 50))))
    return field


def nuclei(width=256, height=256, count=20, seed=1, radius=(8, 12)):
    """Bright disks, well apart, on a dark noisy background: float 0..1, and their number."""
    rng = np.random.default_rng(seed)
    centres, radii = [], []
    for _ in range(10000):
        if len(centres) == count:
            break
        r = rng.uniform(*radius)
        c = (rng.uniform(r + 4, height - r - 4), rng.uniform(r + 4, width - r - 4))
        if all(np.hypot(c[0] - d[0], c[1] - d[1]) > r + s + 8 for d, s in zip(centres, radii)):
            centres.append(c)
            radii.append(r)
    field = _disk_field((height, width), centres, radii) * 0.7 + 0.08
    return np.clip(field + rng.normal(0, 0.015, field.shape), 0, 1), len(centres)


def png(array):
    out = io.BytesIO()
    if array.dtype in (np.float32, np.float64):
        array = (array * 255).round().astype(np.uint8)
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


def jpeg(array, quality=95):
    out = io.BytesIO()
    Image.fromarray((array * 255).round().astype(np.uint8)).save(out, "JPEG", quality=quality)
    return out.getvalue()


def tiff16(array, pages=1):
    import tifffile
    out = io.BytesIO()
    data = (array * 4095).round().astype(np.uint16)
    tifffile.imwrite(out, np.stack([data] * pages) if pages > 1 else data, photometric="minisblack")
    return out.getvalue()


def saved(array, kind):
    out = io.BytesIO()
    Image.fromarray((array * 255).round().astype(np.uint8)).save(out, kind)
    return out.getvalue()


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header_only(width, height):
    """A PNG whose header claims any size and whose data is a few bytes: a decompression bomb in the making."""
    return (b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) +
            _chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + _chunk(b"IEND", b""))


def truncated(data, keep=0.5):
    return data[:int(len(data) * keep)]


def one_colour(width=256, height=256, value=128):
    return png(np.full((height, width), value, np.uint8))
