"""Models of other people: TorchScript files in the forms of other projects run unchanged, from the command line and in a
worker; models are exchanged while the worker runs."""
import json
import signal
import subprocess

import images
import numpy as np
import pytest
import toy_models
from api import Client
from harness import BUILD, wait_until


def run(model, image, out, *options):
    """Objects (features of GeoJSON) that the command line finds; the error's words when it fails."""
    done = subprocess.run([BUILD / "segworker", "run", "--quiet", "--model", f"{model}/", *options, image, "-o", out],
                          capture_output=True, text=True, timeout=120,
                          env={"PATH": "/usr/bin:/bin", "ASAN_OPTIONS": "detect_leaks=0"})
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


def test_labels_from_the_model(tmp_path, picture):
    path, count, _ = picture
    whole = run(toy_models.labels(tmp_path, "whole", tile=512), path, tmp_path / "whole.geojson")
    tiles = run(toy_models.labels(tmp_path, "tiles", tile=128), path, tmp_path / "tiles.geojson")
    assert len(whole) == len(tiles) == count
    assert areas(whole) == areas(tiles)


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
