"""Models of other people: TorchScript files in the forms of other projects run unchanged, from the command line and in a
worker; models are exchanged while the worker runs."""
import json
import os
import signal
import subprocess

import images
import numpy as np
import pytest
import toy_models
from api import Client
from harness import BUILD, ROOT, wait_until


def run(model, image, out, *options, env=None):
    """Objects (features of GeoJSON) that the command line finds; the error's words when it fails."""
    done = subprocess.run([BUILD / "segworker", "run", "--quiet", "--model", f"{model}/", *options, image, "-o", out],
                          capture_output=True, text=True, timeout=120,
                          env={"PATH": "/usr/bin:/bin", **(env or {}),
                               "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1"})
    if done.returncode != 0:
        return done.stderr
    return json.loads(out.read_text())["features"]


def areas(features):
    return sorted(round(f["properties"]["measurements"]["area"]) for f in features)


@pytest.fixture
def picture(tmp_path):
    """Bright disks, their number and their true areas."""
    array, count = images.nuclei(width=400, height=300, count=25, seed=5)
    (tmp_path / "disks.tif").write_bytes(images.tiff16(array))
    return tmp_path / "disks.tif", count, array


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_star_convex(tmp_path, picture, grid):
    path, count, array = picture
    features = run(toy_models.star(tmp_path, grid=grid), path, tmp_path / "out.geojson")
    assert len(features) == count
    bright = int((array > 0.5 * (array.max() + array.min())).sum())
    assert sum(areas(features)) == pytest.approx(bright, rel=0.12)
    for f in features:
        assert f["properties"]["confidence"] > 0.5
        assert f["properties"]["measurements"]["circularity"] > 0.8


def test_star_convex_turned(tmp_path, picture):
    path, count, _ = picture
    plain = run(toy_models.star(tmp_path, "plain", grid=1), path, tmp_path / "plain.geojson")
    for how in "flips", "rotations":
        turned = run(toy_models.star(tmp_path, how, grid=1, testTimeAugmentation=how), path, tmp_path / "t.geojson")
        assert len(turned) == count
        assert areas(turned) == pytest.approx(areas(plain), rel=0.05)
    asked = run(tmp_path / "plain", path, tmp_path / "asked.geojson", "--augment", "rotations")
    assert areas(asked) == areas(turned)


def test_options_of_a_run(tmp_path, picture):
    path, count, _ = picture
    model = toy_models.logits(tmp_path)
    every = areas(run(model, path, tmp_path / "out.geojson"))
    some = run(model, path, tmp_path / "out.geojson", "--min-area", str(every[5]), "--max-area", str(every[-5]))
    assert areas(some) == [a for a in every if every[5] <= a <= every[-5]] or abs(len(some) - (count - 9)) <= 2
    words = run(model, path, tmp_path / "out.geojson", "--min-area", "10", "--max-area", "5")
    assert isinstance(words, str) and "option_invalid" in words
    words = run(toy_models.labels(tmp_path), path, tmp_path / "out.geojson", "--augment", "flips")
    assert isinstance(words, str) and "augmentation" in words


def test_labels_from_the_model(tmp_path, picture):
    path, count, _ = picture
    whole = run(toy_models.labels(tmp_path, "whole", tile=512), path, tmp_path / "whole.geojson")
    tiles = run(toy_models.labels(tmp_path, "tiles", tile=128), path, tmp_path / "tiles.geojson")
    assert len(whole) == len(tiles) == count
    assert areas(whole) == areas(tiles)


@pytest.mark.parametrize("width, height", [(129, 128), (161, 300), (193, 195), (257, 400), (96, 385)])
def test_labels_at_sizes_that_do_not_fit_tiles(tmp_path, width, height):
    array, count = images.nuclei(width=width, height=height, count=8, seed=width)
    (tmp_path / "disks.tif").write_bytes(images.tiff16(array))
    whole = run(toy_models.labels(tmp_path, "whole", tile=512), tmp_path / "disks.tif", tmp_path / "whole.geojson")
    tiles = run(toy_models.labels(tmp_path, "tiles", tile=128), tmp_path / "disks.tif", tmp_path / "tiles.geojson")
    assert len(whole) == count and areas(whole) == areas(tiles)


def test_a_large_image_takes_little_memory(tmp_path):
    """64 million pixels from disk, by tiles: the same cells everywhere, found everywhere, in bounded memory."""
    tifffile = pytest.importorskip("tifffile")
    cell, count = images.nuclei(width=500, height=500, count=30, seed=2, radius=(8, 14))
    cell = (cell * 60000).astype(np.uint16)
    side = 16
    rows = np.tile(cell, (1, side))

    def blocks():
        for y in range(0, side * 500, 400):
            band = np.take(rows, range(y, y + 400), axis=0, mode="wrap")
            for x in range(0, side * 500, 400):
                yield band[:, x:x + 400]
    tifffile.imwrite(tmp_path / "large.tif", blocks(), shape=(side * 500, side * 500), dtype=np.uint16, tile=(400, 400))
    child = subprocess.Popen([BUILD / "segworker", "run", "--quiet", "--model", ROOT / "segworker/models/classical_nuclei",
                              tmp_path / "large.tif", "-o", tmp_path / "out.geojson"],
                             env={"PATH": "/usr/bin:/bin", "ASAN_OPTIONS": "detect_leaks=0"})
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0
    features = json.loads((tmp_path / "out.geojson").read_text())["features"]
    assert len(features) == pytest.approx(count * side * side, rel=0.02)
    if "asan" not in str(BUILD):
        assert usage.ru_maxrss < 700_000, "KiB"


def test_labels_of_a_colour_image_at_a_pixel_size(tmp_path):
    array, count = images.nuclei(width=400, height=300, count=20, seed=8)
    rgb = (np.stack([array, array * 0.9, array * 0.8], -1) * 255).astype(np.uint8)
    (tmp_path / "rgb.png").write_bytes(images.png(rgb))
    model = toy_models.labels(tmp_path, colour="rgb", channels=3, scale={"kind": "pixel_size", "um": 0.5}, tile=256)
    features = run(model, tmp_path / "rgb.png", tmp_path / "out.geojson")
    assert len(features) == count


def test_semantic_softmax_and_augmentation(tmp_path, picture):
    path, count, _ = picture
    plain = run(toy_models.logits(tmp_path, "plain"), path, tmp_path / "plain.geojson")
    turned = run(toy_models.logits(tmp_path, "turned", testTimeAugmentation="rotations"), path, tmp_path / "t.geojson")
    assert len(plain) == len(turned) == count
    assert areas(plain) == pytest.approx(areas(turned), abs=1)  # this network does not care how it is turned


@pytest.mark.parametrize("change, words", [
    (dict(output={"kind": "star_convex", "rays": 16, "grid": 2}), "shape"),
    (dict(output={"kind": "star_convex", "rays": 2, "grid": 2}), "output.rays"),
    (dict(output={"kind": "star_convex", "rays": 32, "grid": 3}), "output.grid"),
    (dict(output={"kind": "votes_of_the_stars"}), "output.kind"),
    (dict(testTimeAugmentation="flips"), "testTimeAugmentation"),
    (dict(normalisation={"kind": "guess"}), "normalisation.kind"),
    (dict(postprocess={"threshold": 0.5, "minArea": 1, "maxHoleArea": 0}), "nmsThreshold"),
])
def test_a_wrong_model_is_refused_in_words(tmp_path, picture, change, words):
    settings = dict(output={"kind": "star_convex", "rays": 32, "grid": 2},
                    postprocess={"threshold": 0.5, "nmsThreshold": 0.4, "minArea": 20, "maxHoleArea": 0}, **{})
    settings.update(change)
    output, postprocess = settings.pop("output"), settings.pop("postprocess")
    model = toy_models.write(tmp_path, "star", toy_models.Star(32, 2), output, postprocess, **settings)
    answer = run(model, picture[0], tmp_path / "out.geojson")
    assert isinstance(answer, str) and words in answer, answer


# ---------------------------------------------------------------- bioimage.io packages

@pytest.mark.parametrize("setting", [{}, {"SEGWORKER_LANES": "1"}, {"SEGWORKER_LANES": "2", "SEGWORKER_BATCH": "3"}])
def test_without_memory_tiles_get_smaller(tmp_path, picture, setting):
    """A network for which a tile is too much, and a batch all the more, still finds the same."""
    path, count, _ = picture
    plain = run(toy_models.logits(tmp_path, "plain"), path, tmp_path / "out.geojson", env={"SEGWORKER_LANES": "1"})
    greedy = toy_models.logits(tmp_path, "greedy", toy_models.Greedy(128 * 128))  # warmed up with a tile of 128 px
    assert run(greedy, path, tmp_path / "out.geojson", env=setting) == plain
    manifest = json.loads((greedy / "model.json").read_text())
    manifest["input"]["tile"] = 384  # now a tile is too much
    (greedy / "model.json").write_text(json.dumps(manifest))
    assert "out_of_memory" in run(greedy, path, tmp_path / "out.geojson", env=setting)  # the model cannot be warmed up
    greedy = toy_models.logits(tmp_path, "large", toy_models.Greedy(256 * 256), tile=384)
    cut = run(greedy, path, tmp_path / "out.geojson", env=setting)
    assert len(cut) == count == len(plain)
    assert areas(cut) == areas(plain)


def tensor_04(name, channels, **more):
    return {"name": name, "axes": "bcyx", "data_type": "float32",
            "shape": {"min": [1, channels, 32, 32], "step": [0, 0, 16, 16]}, **more}


def tensor_05(name, channels, **more):
    size = {"min": 32, "step": 16}
    return {"id": name, "data": {"type": "float32"}, **more,
            "axes": [{"type": "batch"}, {"type": "channel", "channel_names": channels},
                     {"type": "space", "id": "y", "size": size}, {"type": "space", "id": "x", "size": size}]}


RANGE_04 = [{"name": "scale_range", "kwargs": {"mode": "per_sample", "axes": "yx", "min_percentile": 1,
                                               "max_percentile": 99.8}}]
RANGE_05 = [{"id": "scale_range", "kwargs": {"axes": ["y", "x"], "min_percentile": 1, "max_percentile": 99.8}},
            {"id": "clip", "kwargs": {"min": 0, "max": 1}}, {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}]
CENTRED = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"], "eps": 1e-6}},
           {"id": "scale_linear", "kwargs": {"gain": 0.25, "offset": 0.25}}]


def star_package(folder, **kw):
    output = {"name": "out", "axes": "bcyx", "data_type": "float32", "halo": [0, 0, 32, 32],
              "shape": {"reference_tensor": "in", "scale": [1, 0, 0.5, 0.5], "offset": [1, 16.5, 0, 0]}}
    return toy_models.package(folder, "star", toy_models.Star(32, 2), [tensor_04("in", 1, preprocessing=RANGE_04)],
                              [output], version="0.4.10", config={"stardist": {
                                  "thresholds": {"prob": 0.5, "nms": 0.4}, "config": {"n_rays": 32, "grid": [2, 2]}}})


def class_package(folder, preprocessing=RANGE_05, postprocessing=({"id": "softmax", "kwargs": {"axis": "channel"}},),
                  channels=("background", "rim", "foreground"), **kw):
    return toy_models.package(folder, "classes", toy_models.Logits(),
                              [tensor_05("in", ["grey"], preprocessing=list(preprocessing))],
                              [tensor_05("out", list(channels), postprocessing=list(postprocessing))],
                              config={"spheroseg": {"kind": "semantic", "threshold": 0.4}}, **kw)


@pytest.mark.parametrize("make", [star_package, class_package,
                                  lambda folder: class_package(folder, preprocessing=CENTRED)])
def test_a_package_runs(tmp_path, picture, make):
    path, count, _ = picture
    assert len(run(make(tmp_path), path, tmp_path / "out.geojson")) == count


@pytest.mark.parametrize("change, words", [
    (dict(preprocessing=[{"id": "sharpen_twice"}]), "sharpen_twice"),
    (dict(postprocessing=[{"id": "scale_mean_variance"}]), "scale_mean_variance"),
    (dict(preprocessing=[{"id": "ensure_dtype", "kwargs": {"dtype": "uint8"}}]), "uint8"),
    (dict(weights={"pytorch_state_dict": {"source": "w.pt"}}), "pytorch_state_dict"),
    (dict(weights={"torchscript": {"source": "https://example.org/w.pt"}}), "https://example.org"),
    (dict(weights={"torchscript": {"source": "weights.pt", "sha256": "0" * 64}}), "checksum"),
    (dict(version="0.3.6"), "0.3.6"),
    (dict(channels=["a", "b", "c", "d"]), "shape"),
])
def test_a_package_says_what_is_not_understood(tmp_path, picture, change, words):
    answer = run(class_package(tmp_path, **change), picture[0], tmp_path / "out.geojson")
    assert isinstance(answer, str) and words in answer, answer


def test_wrong_axes_are_named(tmp_path, picture):
    inputs = [tensor_04("in", 1, preprocessing=RANGE_04) | {"axes": "bzcyx"}]
    model = toy_models.package(tmp_path, "axes", toy_models.Logits(), inputs, inputs, version="0.4.9")
    answer = run(model, picture[0], tmp_path / "out.geojson")
    assert isinstance(answer, str) and "bzcyx" in answer, answer


# ---------------------------------------------------------------- in a worker

def model_row(stack, name):
    rows = stack.sql("SELECT version FROM models WHERE name = %s", name)
    return rows[0][0] if rows else None


def test_a_worker_runs_them_and_reads_them_again(own_stack, tmp_path, picture):
    path, count, _ = picture
    folder = tmp_path / "models"
    toy_models.star(folder)
    toy_models.labels(folder)
    stack = own_stack(workers=1, env={"MODELS_DIR": str(folder)})
    worker, user = stack.workers[0], Client(stack).register()
    project = user.project("own models")

    def objects(model):
        image = user.upload(project, path.read_bytes(), "disks.tif").json
        job = user.wait_job(user.segment(image, model=model)["jobId"])
        assert job["state"] == "completed", job
        return job["objectCount"], user.get(f"/api/images/{image['id']}/segmentation").json["modelVersion"]

    assert objects("star") == (count, "1.0")
    assert objects("labels") == (count, "1.0")

    # a new version, and a new model, without a restart
    toy_models.star(folder, version="2.0")
    toy_models.logits(folder)
    worker.kill(signal.SIGHUP)
    wait_until(lambda: model_row(stack, "logits") == "1.0" and model_row(stack, "star") == "2.0", 60, "the new models")
    assert objects("star") == (count, "2.0")
    assert objects("logits") == (count, "1.0")

    # one that does not do what it says: the old one goes on
    toy_models.write(folder, "star", toy_models.Labels(), {"kind": "star_convex", "rays": 32, "grid": 2},
                     {"threshold": 0.5, "nmsThreshold": 0.4, "minArea": 20, "maxHoleArea": 0}, version="3.0")
    (folder / "labels" / "model.json").write_text("{}")
    worker.kill(signal.SIGHUP)
    wait_until(lambda: worker.tail(400).count("models were read again") == 2, 60, "the second reading")
    assert "the old one stays" in worker.tail(400)
    assert objects("star") == (count, "2.0")
    assert objects("labels") == (count, "1.0")
    assert worker.running

    # a package is a model as well
    star_package(tmp_path / "made").rename(folder / "zoo")
    worker.kill(signal.SIGHUP)
    wait_until(lambda: model_row(stack, "zoo") == "0.1.0", 60, "the package")
    assert objects("zoo") == (count, "0.1.0")
