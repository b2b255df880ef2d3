"""What other programs read from an image file, in the form in which ours gives it (common/image/image.h):
interleaved samples, palettes expanded, 1 to 7 bits widened to 8, MINISWHITE inverted, CMYK as RGB, orientation applied.
"""
import warnings

import numpy as np
import tifffile
from PIL import Image

ALPHA = (1, 2)  # values of ExtraSamples
NOT_COMPARABLE = (6, 8, 9, 10, 32803, 32844, 32845, 34892)  # YCbCr, Lab, CFA, LogLuv


# ---- decoders that tifffile lacks without the package imagecodecs, written plainly ----

def lzw_decode(data, *_args, **_kwargs):
    """TIFF 6.0, section 13: codes of 9 to 12 bits, most significant bit first, 256 = clear, 257 = end."""
    out, table, width, at = bytearray(), [], 9, 0
    value, held, before = 0, 0, None
    while True:
        while held < width:
            if at >= len(data):
                return bytes(out)
            value, held, at = value << 8 | data[at], held + 8, at + 1
        held -= width
        code, value = value >> held, value & ((1 << held) - 1)
        if code == 257:
            return bytes(out)
        if code == 256:
            table, width, before = [bytes([i]) for i in range(256)] + [b"", b""], 9, None
            continue
        if before is None:
            entry = table[code]
        else:
            entry = table[code] if code < len(table) else before + before[:1]
            table.append(before + entry[:1])
        out += entry
        before = entry
        width = 12 if len(table) >= 2047 else 11 if len(table) >= 1023 else 10 if len(table) >= 511 else 9


def packints_decode(data, dtype, bits, runlen=0, out=None):
    """Rows of runlen numbers of `bits` bits, each row on a byte of its own."""
    row = (runlen * bits + 7) // 8
    a = np.frombuffer(data, np.uint8)
    a = a[:len(a) // row * row].reshape(-1, row)
    digits = np.unpackbits(a, axis=1)[:, :runlen * bits].reshape(len(a), runlen, bits).astype(np.uint64)
    return (digits << np.arange(bits - 1, -1, -1, dtype=np.uint64)).sum(axis=2).astype(dtype).reshape(-1)


def floatpred_decode(data, axis=-2, dist=1, out=None):
    """TIFF technical note 3: the bytes of a row by significance, each the difference to that of the pixel before."""
    assert axis == -2 and data.ndim >= 2
    a = np.ascontiguousarray(data)
    w, samples, size = a.shape[-2], a.shape[-1], a.dtype.itemsize
    sums = a.reshape(-1, w * samples).view(np.uint8).reshape(-1, w * size, samples).cumsum(axis=1, dtype=np.uint8)
    by_value = sums.reshape(-1, size, w * samples).transpose(0, 2, 1)
    return by_value.copy().view(a.dtype.newbyteorder(">")).reshape(a.shape).astype(a.dtype)


def packbits_encode(data, *_args, **_kwargs):
    """TIFF 6.0, section 9: a run as 257 - n and the byte, other bytes as n - 1 and themselves; each row by itself."""
    rows = np.asarray(data)
    rows = rows.reshape(-1, rows.shape[-2] * rows.shape[-1]) if rows.ndim > 1 else rows.reshape(1, -1)
    out = bytearray()
    for row in rows:
        raw = np.ascontiguousarray(row).tobytes()
        i = 0
        while i < len(raw):
            n = next((k for k in range(1, 128) if raw[i + k:i + k + 1] != raw[i:i + 1]), 128)
            if n > 1:
                out += bytes((257 - n, raw[i]))
            else:
                n = min(len(raw) - i, 5)
                out += bytes((n - 1,)) + raw[i:i + n]
            i += n
    return bytes(out)


for _name, _decode in (("packbits_encode", packbits_encode), ("lzw_decode", lzw_decode), ("packints_decode", packints_decode), ("floatpred_decode", floatpred_decode)):
    if tifffile.tifffile.imagecodecs.__name__.startswith("tifffile"):  # the substitute for the package
        setattr(tifffile.tifffile.imagecodecs, _name, _decode)


class Unreadable(Exception):
    """The other program cannot read the file either, or not in a comparable form."""


def orient(a, orientation):
    """Rows and columns turned as TIFF's tag 274 says."""
    if orientation >= 5:
        a = a.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        a = a[:, ::-1]
    if orientation in (3, 4, 7, 8):
        a = a[::-1]
    return a


def ink_to_rgb(a, most):
    a = a.astype(np.uint64)
    black = most - a[..., 3:4]
    rgb = ((most - a[..., :3]) * black + most // 2) // most
    return np.concatenate([rgb, a[..., 4:5]], axis=2)


def widen(a, bits):
    return a.astype(np.uint32) * 255 // ((1 << bits) - 1) if bits < 8 else a


def tag(page, name, default=None):
    return page.tags[name].value if name in page.tags else default


def with_tifffile(path, index):
    """Samples of a page by tifffile alone: height x width x channels."""
    try:
        with tifffile.TiffFile(path) as f:
            return from_page(f.pages[index])
    except Unreadable:
        raise
    except Exception as e:  # whatever a damaged or unusual file makes it raise
        raise Unreadable(f"tifffile: {type(e).__name__}: {e}") from e


def from_page(page):
    raw = page.asarray()
    spp, h, w, bits = page.samplesperpixel, page.imagelength, page.imagewidth, page.bitspersample
    if raw.size == 0 or raw.size != h * w * spp:
        raise Unreadable(f"tifffile: shape {raw.shape}")
    a = raw.reshape(spp, h, w).transpose(1, 2, 0) if page.planarconfig == 2 and spp > 1 else raw.reshape(h, w, spp)
    photometric = int(tag(page, "PhotometricInterpretation", 1))
    if photometric in NOT_COMPARABLE:
        raise Unreadable(f"tifffile: colour model {photometric} is not comparable")
    signed = a.dtype.kind in "if" or a.dtype.itemsize == 8
    extra = list(page.extrasamples or ())
    alpha = next((spp - len(extra) + i for i, e in enumerate(extra) if e in ALPHA), None)
    if photometric == 3:
        table = np.asarray(page.colormap)
        table = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
        colours = table[:, a[..., 0].astype(np.int64)].transpose(1, 2, 0)
        a = colours if alpha is None else np.concatenate([colours, a[..., alpha:alpha + 1]], axis=2)
    elif photometric == 5 and tag(page, "InkSet", 1) == 1 and spp >= 4 and a.dtype in (np.uint8, np.uint16):
        a = ink_to_rgb(a[..., :4] if alpha is None else a[..., [0, 1, 2, 3, alpha]], (1 << bits) - 1)
    else:
        if photometric == 0:
            a = -a.astype(np.float32) if signed else ((1 << bits) - 1) - a.astype(np.uint64)
        if not signed:
            a = widen(a, bits)
        if alpha is not None:  # goes last
            a = a[..., [i for i in range(spp) if i != alpha] + [alpha]]
    turned = tag(page, "Orientation", 1)
    return orient(a, turned[0] if isinstance(turned, bytes) else int(turned))


def with_pillow(path, index):
    try:
        with warnings.catch_warnings(), Image.open(path) as im:
            warnings.simplefilter("ignore")
            im.seek(index)
            im.load()
            if im.mode == "CMYK":
                a = ink_to_rgb(np.asarray(im), 255)
            elif im.mode in ("YCbCr", "LAB", "P", "PA"):
                a = np.asarray(im.convert("RGBA" if "transparency" in im.info or im.mode == "PA" else "RGB"))
            elif im.mode == "1":
                a = np.asarray(im.convert("L"))
            else:
                a = np.asarray(im)
    except Exception as e:
        raise Unreadable(f"Pillow: {type(e).__name__}: {e}") from e
    return a.reshape(*a.shape[:2], -1)
