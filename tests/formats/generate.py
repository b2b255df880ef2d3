"""Makes image files of every combination that the decoders claim, each with the samples that decoding must give.

Yields (name, write(path), expected samples of page 0 as height x width x channels, tolerance). The samples are noise on
a gradient, so that shifted rows, swapped bytes and mixed channels show.
"""
import itertools

import numpy as np
import tifffile
from PIL import Image

from reference import ink_to_rgb, orient

INTEGERS = (np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.int32, np.uint64, np.int64)
FLOATS = (np.float16, np.float32, np.float64)


def noise(shape, dtype, seed=1):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return (rng.standard_normal(shape) * 100).astype(dtype)
    limits = np.iinfo(dtype)
    ramp = np.linspace(0, 0.5, shape[-1]) * (float(limits.max) - float(limits.min))
    spread = rng.random(shape) * 0.4 * (float(limits.max) - float(limits.min))
    return (float(limits.min) + ramp + spread).astype(dtype)


def decoded(a):
    """The type that decoding gives: 8, 16 and 32-bit unsigned stay, all others become 32-bit floats."""
    return a if a.dtype in (np.uint8, np.uint16, np.uint32) else a.astype(np.float32)


def tiff_arrays():
    """Samples of all types, one, three, four and seven channels, strips and tiles, both plane orders, both byte orders."""
    layouts = [dict(rowsperstrip=5), dict(rowsperstrip=37), dict(tile=(16, 32))]
    for dtype, channels, layout in itertools.product(INTEGERS + FLOATS, (1, 3, 4, 7), layouts):
        for planar, order, big in itertools.product((False, True) if channels > 1 else (False,), "<>", (False, True)):
            if big and (order == ">" or np.dtype(dtype).itemsize > 2):
                continue  # one BigTIFF of each kind is enough
            a = noise((37, 53, channels), dtype, channels)
            options = dict(layout, photometric="rgb" if channels in (3, 4) else "minisblack",
                           planarconfig=None if channels == 1 else "separate" if planar else "contig")
            if channels in (4, 7):
                options["extrasamples"] = [2] if channels == 4 else [0] * 6
            stored = a[..., 0] if channels == 1 else a.transpose(2, 0, 1) if planar else a
            name = f"{np.dtype(dtype).name}-{channels}-{'-'.join(map(str, layout))}{list(layout.values())[0]}-{'s' if planar else 'c'}{order}{'big' if big else ''}"

            def write(path, stored=stored, options=options, order=order, big=big):
                tifffile.imwrite(path, stored, byteorder=order, bigtiff=big, metadata=None, **options)
            yield f"tiff-{name}", write, decoded(a), 0


def tiff_compressed():
    """Compressions of tifffile with both predictors, and those that only Pillow's libtiff writes."""
    for compression, predictor, dtype, tiled in itertools.product(("zlib", "packbits", "lzma"), (None, 2), (np.uint8, np.uint16, np.int32, np.float32), (False, True)):
        if predictor and (compression == "packbits" or np.dtype(dtype).kind == "f"):
            continue
        a = noise((70, 41, 3), dtype)

        def write(path, a=a, compression=compression, predictor=predictor, tiled=tiled):
            tifffile.imwrite(path, a, photometric="rgb", compression=compression, predictor=predictor, metadata=None,
                             **(dict(tile=(32, 16)) if tiled else dict(rowsperstrip=9)))
        yield f"tiff-{compression}-{predictor}-{np.dtype(dtype).name}-{tiled}", write, decoded(a), 0
    pillow = (("tiff_lzw", "L"), ("tiff_lzw", "RGB"), ("tiff_deflate", "RGBA"), ("tiff_adobe_deflate", "I;16"), ("packbits", "L"),
              ("lzma", "RGB"), ("zstd", "L"), ("zstd", "I;16"), ("webp", "RGB"), ("jpeg", "L"), ("jpeg", "RGB"), ("jpeg", "CMYK"),
              ("group3", "1"), ("group4", "1"), ("tiff_ccitt", "1"), ("tiff_lzw", "F"), ("tiff_lzw", "I"), ("tiff_lzw", "CMYK"), ("tiff_lzw", "P"))
    for compression, mode in pillow:
        image = picture(mode)

        def write(path, image=image, compression=compression):
            options = {"tiffinfo": {317: 2}} if compression in ("tiff_lzw", "zstd") and image.mode in ("L", "RGB", "I;16") else {}
            if compression == "jpeg":
                options["quality"] = 90
            image.save(path, "TIFF", compression=compression, **options)
        lossy = compression in ("jpeg", "webp")
        yield f"tiff-pillow-{compression}-{mode}", write, None if lossy else of_pillow(image), 0


def tiff_photometric():
    a = noise((20, 33), np.uint8)
    yield "tiff-miniswhite-8", lambda p: tifffile.imwrite(p, a, photometric="miniswhite", metadata=None), 255 - a[..., None], 0
    b = noise((20, 33), np.uint16)
    yield "tiff-miniswhite-16", lambda p: tifffile.imwrite(p, b, photometric="miniswhite", metadata=None), 65535 - b[..., None], 0
    table = np.random.default_rng(3).integers(0, 256, (3, 256)).astype(np.uint16)
    yield ("tiff-palette", lambda p: tifffile.imwrite(p, a, photometric="palette", colormap=table * 257, metadata=None),
           table[:, a].transpose(1, 2, 0).astype(np.uint8), 0)
    c = noise((20, 33, 4), np.uint8)
    yield "tiff-cmyk", lambda p: tifffile.imwrite(p, c, photometric="separated", metadata=None), ink_to_rgb(c, 255).astype(np.uint8), 0
    bits = np.random.default_rng(4).integers(0, 2, (20, 33)).astype(np.uint8) * 255
    yield "tiff-1bit", lambda p: Image.fromarray(bits).convert("1").save(p, "TIFF"), bits[..., None], 0
    for o in range(1, 9):
        a3 = noise((20, 33, 3), np.uint16, o)
        for layout in (dict(rowsperstrip=3), dict(tile=(16, 16))):
            yield (f"tiff-orientation-{o}-{list(layout)[0]}",
                   lambda p, a3=a3, o=o, layout=layout: tifffile.imwrite(p, a3, photometric="rgb", metadata=None, extratags=[(274, "H", 1, o, True)], **layout),
                   orient(a3, o), 0)
    big = noise((900, 3000), np.uint16)  # strips over 4 MB are read in bands
    for compression, order in ((None, "<"), (None, ">"), ("zlib", "<"), ("packbits", "<"), ("lzma", ">")):
        yield (f"tiff-one-strip-{compression}{order}", lambda p, compression=compression, order=order: tifffile.imwrite(
            p, big, rowsperstrip=900, compression=compression, byteorder=order, metadata=None), big[..., None], 0)


# ---- the other formats, written by Pillow ----

def picture(mode, w=53, h=37):
    rgb = noise((h, w, 4), np.uint8, 9)
    if mode == "1":
        return Image.fromarray((rgb[..., 0] > 120)).convert("1")
    if mode == "P":
        return Image.fromarray(rgb[..., :3]).quantize(17)
    if mode == "I;16":
        return Image.fromarray(noise((h, w), np.uint16))
    if mode == "I":
        return Image.fromarray(noise((h, w), np.int32))
    if mode == "F":
        return Image.fromarray(noise((h, w), np.float32))
    if mode == "LA":
        return Image.fromarray(rgb[..., :2].copy(), "LA")
    return Image.fromarray({"L": rgb[..., 0], "RGB": rgb[..., :3], "RGBA": rgb, "CMYK": rgb}[mode].copy(), mode)


def of_pillow(image):
    if image.mode == "CMYK":
        return ink_to_rgb(np.asarray(image), 255).astype(np.uint8)
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "1":
        image = image.convert("L")
    a = np.asarray(image)
    return decoded(a.reshape(*a.shape[:2], -1))


def other_formats():
    for mode in ("1", "L", "LA", "RGB", "RGBA", "P", "I;16"):
        image = picture(mode)
        yield f"png-{mode}", lambda p, i=image: i.save(p, "PNG"), of_pillow(image), 0
    clear = picture("P")
    clear.info["transparency"] = 3
    yield "png-P-transparency", lambda p: clear.save(p, "PNG", transparency=3), of_pillow(clear), 0
    for bits in (1, 2, 4):
        image = picture("RGB").quantize(1 << bits)
        yield f"png-palette-{bits}", lambda p, i=image, bits=bits: i.save(p, "PNG", bits=bits), of_pillow(image), 0
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        image = picture(mode)
        want = of_pillow(image)
        want = want[..., :3] if mode == "RGBA" else want  # Pillow's header names no alpha
        yield f"bmp-{mode}", lambda p, i=image: i.save(p, "BMP"), want, 0
    for mode in ("1", "L", "P"):
        image = picture(mode)
        yield f"gif-{mode}", lambda p, i=image: i.save(p, "GIF"), of_pillow(image) if mode == "P" else None, 0
    for mode in ("L", "RGB", "CMYK"):
        for progressive in (False, True):
            image = picture(mode)
            yield f"jpeg-{mode}-{progressive}", lambda p, i=image, g=progressive: i.save(p, "JPEG", quality=95, progressive=g), None, 1
    for o in range(1, 9):
        image, exif = picture("RGB"), Image.Exif()
        exif[274] = o
        yield f"jpeg-orientation-{o}", lambda p, i=image, e=exif: i.save(p, "JPEG", exif=e), None, 1
        yield f"png-orientation-{o}", lambda p, i=image, e=exif: i.save(p, "PNG", exif=e), orient(of_pillow(image), o), 0
        yield f"webp-orientation-{o}", lambda p, i=image, e=exif: i.save(p, "WEBP", exif=e, lossless=True), orient(of_pillow(image), o), 0
    for mode, lossless in itertools.product(("RGB", "RGBA"), (False, True)):
        image = picture(mode)
        yield f"webp-{mode}-{lossless}", lambda p, i=image, q=lossless: i.save(p, "WEBP", lossless=q, exact=True), of_pillow(image) if lossless else None, 0


def every_file():
    return itertools.chain(tiff_arrays(), tiff_compressed(), tiff_photometric(), other_formats())
