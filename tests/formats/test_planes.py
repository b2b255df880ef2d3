"""Which page is which channel, slice and time; size of a pixel; pyramids; large stacks with one directory."""
import itertools
import struct

import numpy as np
import pytest
import tifffile

from dump import dump

C, Z, T, H, W = 3, 2, 4, 11, 17


def stack(dtype=np.uint16):
    """Axes C, Z, T, Y, X; every plane different."""
    return np.random.default_rng(5).integers(0, 60000, (C, Z, T, H, W)).astype(dtype)


def plane(path, *options):
    info, got = dump(path, "--grey", *options)
    assert got is not None, info
    return got[..., 0]


def every_plane_is_right(path, a):
    info, _ = dump(path)
    assert (info["c"], info["z"], info["t"], info["pages"]) == (C, Z, T, C * Z * T)
    for c, z, t in itertools.product(range(C), range(Z), range(T)):
        assert np.array_equal(plane(path, "--channel", c, "--z", z, "--t", t), a[c, z, t]), (c, z, t)


@pytest.mark.parametrize("order", ["".join(p) for p in itertools.permutations("CZT")])
def test_ome_in_any_order(tmp_path, order):
    a, path = stack(), tmp_path / "a.ome.tif"
    axes = order[::-1] + "YX"  # the last letter of an order is the slowest axis
    tifffile.imwrite(path, a.transpose([*("CZT".index(i) for i in axes[:3]), 3, 4]), ome=True, photometric="minisblack",
                     metadata={"axes": axes, "PhysicalSizeX": 325, "PhysicalSizeXUnit": "nm"})
    with tifffile.TiffFile(path) as f:
        assert f'DimensionOrder="XY{order}"' in f.ome_metadata
    every_plane_is_right(path, a)
    assert dump(path)[0]["pixelUm"] == pytest.approx(0.325)


def test_ome_with_scattered_directories(tmp_path):
    a, path = stack(), tmp_path / "a.ome.tif"
    places = list(itertools.product(range(C), range(Z), range(T)))
    np.random.default_rng(6).shuffle(places)
    blocks = "".join(f'<TiffData IFD="{i}" FirstC="{c}" FirstZ="{z}" FirstT="{t}" PlaneCount="1"/>' for i, (c, z, t) in enumerate(places))
    xml = (f'<?xml version="1.0" encoding="UTF-8"?><OME:OME xmlns:OME="http://www.openmicroscopy.org/Schemas/OME/2016-06"><OME:Image ID="Image:0">'
           f'<OME:Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="{W}" SizeY="{H}" SizeC="{C}" SizeZ="{Z}" SizeT="{T}" '
           f'PhysicalSizeX="1.3" PhysicalSizeXUnit="&#181;m">{blocks.replace("<Tiff", "<OME:Tiff")}</OME:Pixels></OME:Image></OME:OME>')
    with tifffile.TiffWriter(path) as f:
        for i, p in enumerate(places):
            f.write(a[p], photometric="minisblack", description=xml if i == 0 else None, metadata=None)
    every_plane_is_right(path, a)
    assert dump(path)[0]["pixelUm"] == pytest.approx(1.3)
    info, got = dump(path, "--channel", C)
    assert got is None and info["error"] == "image_no_such_channel"
    info, got = dump(path, "--z", Z)
    assert got is None and info["error"] == "image_no_such_plane"


def test_ome_entities_are_not_expanded(tmp_path):
    path = tmp_path / "a.tif"
    xml = ('<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY x SYSTEM "file:///etc/passwd">]>'
           '<OME><Image><Pixels PhysicalSizeX="0.5" SizeC="3" Name="&b;">&x;</Pixels></Image></OME>')
    tifffile.imwrite(path, np.zeros((3, 4), np.uint8), description=xml, metadata=None)
    info, got = dump(path)
    assert got is not None and info["pixelUm"] == 0 and info["c"] == 1


def test_imagej_hyperstack(tmp_path):
    a, path = stack(), tmp_path / "a.tif"
    tifffile.imwrite(path, a.transpose(2, 1, 0, 3, 4), imagej=True, resolution=(4.0, 4.0), metadata={"axes": "TZCYX", "unit": "um", "spacing": 2.0})
    every_plane_is_right(path, a)
    assert dump(path)[0]["pixelUm"] == pytest.approx(0.25)


@pytest.mark.parametrize("order", "<>")
def test_imagej_stack_with_one_directory(tmp_path, order):
    """As ImageJ writes stacks of more than 4 GB."""
    a, path = stack(), tmp_path / "a.tif"
    text = f"ImageJ=1.53t\nimages={C * Z * T}\nchannels={C}\nslices={Z}\nframes={T}\nhyperstack=true\nunit=micron\n"
    tifffile.imwrite(path, a[0, 0, 0], byteorder=order, description=text, resolution=(2.0, 2.0), resolutionunit="NONE", metadata=None)
    with open(path, "r+b") as f:
        data = f.read()
        with tifffile.TiffFile(path) as t:
            at = t.pages[0].tags["StripOffsets"].valueoffset
        f.seek(0, 2)
        f.write(b"\0" * (-len(data) % 2))
        begin = f.tell()
        f.write(a.transpose(2, 1, 0, 3, 4).astype(f"{order}u2").tobytes())
        f.seek(at)
        f.write(struct.pack(order + "I", begin))
    every_plane_is_right(path, a)
    assert dump(path)[0]["pixelUm"] == pytest.approx(0.5)


def test_mixes(tmp_path):
    a, path = stack(), tmp_path / "a.tif"
    tifffile.imwrite(path, a.transpose(2, 1, 0, 3, 4), imagej=True, metadata={"axes": "TZCYX"})
    mean = plane(path, "--weights", "1,1,1", "--z", 1, "--t", 2)
    assert np.allclose(mean, a[:, 1, 2].mean(axis=0), rtol=1e-6)
    difference = plane(path, "--weights", "0.5,0,-1.5", "--z", 0, "--t", 3)
    assert np.allclose(difference, (0.5 * a[0, 0, 3].astype(float) - 1.5 * a[2, 0, 3]) / 2, rtol=1e-5, atol=0.01)
    seven = np.random.default_rng(7).random((7, H, W)).astype(np.float32)
    tifffile.imwrite(path, seven, planarconfig="separate", photometric="minisblack", metadata=None, extrasamples=[0] * 6)
    assert dump(path)[0]["c"] == 7
    assert np.allclose(plane(path), seven.mean(axis=0), rtol=1e-6)
    assert np.array_equal(plane(path, "--channel", 5), seven[5])


@pytest.mark.parametrize("how", ["sub-directories", "reduced pages", "pages without marks"])
def test_pyramids_count_once(tmp_path, how):
    a, path = np.random.default_rng(8).integers(0, 255, (3, 200, 300)).astype(np.uint8), tmp_path / "a.tif"
    options = dict(tile=(32, 32), photometric="minisblack", metadata=None)
    pages = 3 if how != "pages without marks" else 1
    with tifffile.TiffWriter(path) as f:
        for i in range(pages):
            f.write(a[i], subifds=2 if how == "sub-directories" else 0, **options)
            for step in (2, 4):
                f.write(a[i, ::step, ::step], subfiletype=0 if how == "pages without marks" else 1, **options)
    assert dump(path)[0]["pages"] == pages
    for i in range(pages):
        assert np.array_equal(dump(path, "--page", i)[1][..., 0], a[i])


def test_full_image_below_a_thumbnail(tmp_path):
    a, path = np.random.default_rng(9).integers(0, 255, (64, 80)).astype(np.uint8), tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as f:
        f.write(a[::4, ::4], subifds=1, subfiletype=1, photometric="minisblack", metadata=None)
        f.write(a, subfiletype=0, photometric="minisblack", metadata=None)
    info, got = dump(path)
    assert info["pages"] == 1 and np.array_equal(got[..., 0], a)


@pytest.mark.parametrize("resolution, unit, um", [
    ((20000, 20000), "CENTIMETER", 0.5), ((50800, 50800), "INCH", 0.5), ((300, 300), "INCH", 0), ((72, 72), "CENTIMETER", 0), ((3, 3), "NONE", 0)])
def test_resolution_tags(tmp_path, resolution, unit, um):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((3, 4), np.uint8), resolution=resolution, resolutionunit=unit, metadata=None)
    assert dump(path)[0]["pixelUm"] == pytest.approx(um, rel=1e-5)


def test_a_large_file_costs_little_memory(tmp_path):
    """A quarter of a gigabyte of pixels: rectangles cost the cache and what is asked for."""
    path = tmp_path / "a.tif"
    a = np.arange(12000, dtype=np.uint16)[None, :] + np.arange(12000, dtype=np.uint16)[:, None]
    for options in (dict(tile=(256, 256), compression="zlib"), dict(rowsperstrip=12000)):
        tifffile.imwrite(path, a, photometric="minisblack", metadata=None, **options)
        info, got = dump(path, "--rect", "11000,11500,1000,500", timeout=120)
        assert np.array_equal(got[..., 0], a[11500:12000, 11000:12000])
        assert info["peakKb"] < 100 * 1024
