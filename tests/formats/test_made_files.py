"""Every combination of format, type, layout and compression that is claimed, made on the spot: our samples are those that
were written (or, where writing loses something, those that Pillow reads back). Each file is read whole and in rectangles.
"""
import numpy as np
import pytest
from PIL import Image, ImageOps

from dump import dump
from generate import every_file
from reference import ink_to_rgb

FILES = {name: (write, want, tolerance) for name, write, want, tolerance in every_file()}
GROUPS = sorted({name.rsplit("-", 1)[0] if name.startswith("tiff-") else name.split("-")[0] for name in FILES})


def read_back(path):
    with Image.open(path) as im:
        im = ImageOps.exif_transpose(im)
        if im.mode == "CMYK":
            return ink_to_rgb(np.asarray(im), 255)
        a = np.asarray(im.convert("RGB") if im.mode == "P" else im)
    return a.reshape(*a.shape[:2], -1)


def check(path, want, tolerance):
    info, got = dump(path)
    assert got is not None, info
    want = read_back(path) if want is None else want
    if {want.shape[2], got.shape[2]} == {1, 3}:  # a palette of greys may be given as grey
        got, want = (np.broadcast_to(a, (*a.shape[:2], 3)) for a in (got, want))
    assert got.shape == want.shape
    if tolerance == 0:
        assert np.array_equal(got, want, equal_nan=want.dtype.kind == "f")
    else:
        assert np.abs(got.astype(int) - want.astype(int)).max() <= tolerance


@pytest.mark.parametrize("group", GROUPS)
def test_decodes(group, tmp_path):
    members = {n: f for n, f in FILES.items() if (n.rsplit("-", 1)[0] if n.startswith("tiff-") else n.split("-")[0]) == group}
    assert members
    wrong = []
    for name, (write, want, tolerance) in members.items():
        path = tmp_path / "image"
        write(path)
        try:
            check(path, want, tolerance)
        except AssertionError as e:
            wrong.append(f"{name}: {str(e).splitlines()[0]}")
    assert not wrong, "\n".join(wrong)


def test_there_are_many():
    assert len(FILES) > 500
