"""Real files: unusual TIFFs against tifffile and Pillow, hostile files of all formats against time and memory. They are not
part of this repository; without them the tests are skipped.
"""
import os
import pathlib
import time

import numpy as np
import pytest

from dump import ROOT, dump
from reference import Unreadable, with_pillow, with_tifffile

DATA = pathlib.Path(os.environ.get("SPHEROSEG_DATA", ROOT.parent / "shared/data"))
SANITIZED = "asan" in os.environ.get("SPHEROSEG_BUILD", "")

# Decoded by us; neither tifffile (without its codecs) nor Pillow gives samples that could be compared.
NOT_COMPARABLE = {
    "goimage__invalid-palette-ref.tiff": "pixels beyond the end of the colour map",
    "image-tiff__logluv-3c-16b.tiff": "LogLuv",
    "image-tiff__off_luv32.tif": "LogLuv",
    "large_image__small_la.tiff": "JPEG of grey and alpha",
    "pillow__tiff_overflow_rows_per_strip.tif": "one strip that is shorter than it says",
    "twelve__ColorCheckerCalculator.tif": "CIELab: Pillow converts with another white point",
}
# Refused by us, with words, and by both of the others.
REFUSED = {
    "image__ycbcr_lzw_broken.tif": "image_unsupported",
    "large_image__zero_gi.tif": "image_corrupt",
    "twelve__jpeg-lossless-12bit-gray.tif": "image_unsupported",
    "twelve__jpeg-lossless-8bit-gray.tif": "image_unsupported",
    "twelve__planar-yuv410-jpeg-lzw.tif": "image_unsupported",
    "twelve__planar-yuv410-jpeg-uncompressed.tif": "image_unsupported",
}


def files(folder):
    found = sorted(p for p in (DATA / folder).rglob("*") if p.is_file() and p.suffix not in (".csv", ".txt"))
    return found or [pytest.param(None, marks=pytest.mark.skip(reason=f"{DATA / folder} is not there"))]


def references(path, page):
    for read in (with_tifffile, with_pillow):
        try:
            yield read.__name__, read(path, page)
        except Unreadable as e:
            yield str(e), None


def same(got, want):
    if got.shape != want.shape:
        return False
    if got.dtype == np.float32:
        want = want.astype(np.float32)
    return np.array_equal(got, want, equal_nan=got.dtype.kind == "f")


@pytest.mark.parametrize("path", files("tiff/files"), ids=lambda p: p.name if p else "none")
def test_tiff(path):
    info, first = dump(path)
    if path.name in REFUSED:
        assert first is None and info["error"] == REFUSED[path.name] and len(info["message"]) > 20
        return
    assert first is not None, info
    if path.name in NOT_COMPARABLE:
        return
    for page in range(min(info["pages"], 3)):
        got = first if page == 0 else dump(path, "--page", page)[1]
        compared = list(references(path, page))
        assert any(want is not None and same(got, want) for _, want in compared), [n for n, _ in compared]


def test_hostile_files(capsys):
    """No crash, no sanitizer's finding, a second and half a gigabyte at most; an error has a code and words."""
    found = [p for p in files("badfiles") if isinstance(p, pathlib.Path)]
    if not found:
        pytest.skip(f"{DATA / 'badfiles'} is not there")
    slowest = largest = 0.0
    refused, wrong = 0, []
    for path in found:
        start = time.monotonic()
        info, samples = dump(path, "--megabytes", 256)
        seconds = time.monotonic() - start
        megabytes = info["peakKb"] / 1024
        slowest, largest = max(slowest, seconds), max(largest, megabytes)
        refused += samples is None
        if seconds > (10 if SANITIZED else 2) or megabytes > (1500 if SANITIZED else 700):
            wrong.append(f"{path.name}: {seconds:.1f} s, {megabytes:.0f} MB")
        if samples is None and (not info["error"] or len(info["message"]) < 20):
            wrong.append(f"{path.name}: {info}")
    with capsys.disabled():
        print(f"\n{len(found)} hostile files: {refused} refused, slowest {slowest:.2f} s, largest {largest:.0f} MB", end=" ")
    assert not wrong, "\n".join(wrong)
