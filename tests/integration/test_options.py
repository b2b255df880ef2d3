"""What can be chosen for a job: each option changes the result as it should, is shown where it was used, and is part of
what decides whether an earlier result is reused; what makes no sense is refused with the field and its range."""
import io

import images
import numpy as np
import pytest
from api import Client
from test_contract import check

MODEL = "classical_nuclei"


def blobs(count, seed, width=200, height=160):
    array, found = images.nuclei(width=width, height=height, count=count, seed=seed)
    return (array * 4000).round().astype(np.uint16), found


def tiff(data, **how):
    tifffile = pytest.importorskip("tifffile")
    out = io.BytesIO()
    tifffile.imwrite(out, data, **how)
    return out.getvalue()


def segmented(client, image, **request):
    """The finished job, the result and the areas of its objects."""
    job = client.wait_job(client.segment(image, model=MODEL, **request)["jobId"])
    assert job["state"] == "completed", job
    result = check(client.get(f"/api/images/{image['id']}/segmentation"), "GET", "/api/images/{imageId}/segmentation").json
    features = client.polygons(image).json["features"]
    return job, result, sorted(f["properties"]["measurements"]["area"] for f in features)


def test_sizes(stack, alice):
    array, count = blobs(12, 3)
    image = alice.upload(alice.project("sizes"), tiff(array, photometric="minisblack"), "disks.tif").json
    job, result, every = segmented(alice, image)
    assert len(every) == count and job["options"] == {}
    assert result["options"] == {"minArea": 20, "maxArea": 0, "maxHoleArea": 10, "augment": "none"}
    low, high = int(every[2]) + 1, int(every[-3])
    job, result, some = segmented(alice, image, options={"minArea": low, "maxArea": high, "page": 1})
    assert len(some) < count and low - 10 <= some[0] and some[-1] <= high + 10
    assert job["options"] == {"minArea": low, "maxArea": high}  # page 1 is what is taken anyway
    assert (result["options"]["minArea"], result["options"]["maxArea"]) == (low, high)
    check(alice.get(f"/api/segmentation/job/{job['id']}"), "GET", "/api/segmentation/job/{jobId}")


def test_holes(stack, alice):
    yy, xx = np.mgrid[0:200, 0:200]
    d = np.hypot(yy - 100, xx - 100)
    ring = np.where((d < 40) & (d > 14), 3000, 300).astype(np.uint16)
    ring += np.random.default_rng(1).integers(0, 40, ring.shape, dtype=np.uint16)
    image = alice.upload(alice.project("holes"), tiff(ring, photometric="minisblack"), "ring.tif").json
    hole = np.pi * 14 * 14
    _, _, (kept,) = segmented(alice, image)
    _, result, (filled,) = segmented(alice, image, options={"maxHoleArea": 2000})
    assert result["options"]["maxHoleArea"] == 2000 and filled - kept == pytest.approx(hole, rel=0.2)
    _, _, (kept_again,) = segmented(alice, image, options={"maxHoleArea": 100})
    assert kept_again == pytest.approx(kept, rel=0.02)
    _, result, (all_filled,) = segmented(alice, image, detectHoles=False)
    assert result["detectHoles"] is False and all_filled == pytest.approx(filled, rel=0.01)


def test_planes_of_a_stack(stack, alice):
    pages, counts = zip(*(blobs(n, n) for n in (5, 9, 13)))
    image = alice.upload(alice.project("pages"), tiff(np.stack(pages), photometric="minisblack", metadata=None), "pages.tif").json
    assert image["pages"] == 3 and image["planes"] == {"channels": 1, "slices": 3, "times": 1}
    for n in 0, 1, 2:
        job, result, found = segmented(alice, image, options={"page": n + 1})
        assert len(found) == counts[n] and result["options"].get("page", 1) == n + 1

    data = np.stack([np.stack(pages), np.stack(pages[::-1])])  # two times of three slices
    image = alice.upload(alice.project("stack"), tiff(data, photometric="minisblack", ome=True, metadata={"axes": "TZYX"}), "stack.ome.tif").json
    assert image["planes"] == {"channels": 1, "slices": 3, "times": 2}
    for z, t in (1, 1), (3, 1), (3, 2):
        job, result, found = segmented(alice, image, options={"z": z, "time": t})
        assert len(found) == counts[z - 1 if t == 1 else 3 - z], (z, t)
        assert job["options"] == {"z": z, "time": t} and result["options"]["z"] == z


def test_channels(stack, alice):
    (few, n), (many, m) = blobs(4, 7), blobs(11, 2)
    both = np.stack([few >> 4, many >> 4, np.zeros_like(few)], axis=-1).astype(np.uint8)
    image = alice.upload(alice.project("colours"), tiff(both, photometric="rgb"), "colours.tif").json
    assert image["planes"]["channels"] == 3
    assert len(segmented(alice, image, options={"channel": 1})[2]) == n
    _, result, found = segmented(alice, image, options={"channel": 2})
    assert len(found) == m and result["options"]["channel"] == 2
    _, result, found = segmented(alice, image, options={"mix": [0, 1, 0]})
    assert len(found) == m and result["options"]["mix"] == [0, 1]


def test_augmentation(stack, alice):
    array, count = blobs(6, 5, 96, 96)
    image = alice.upload(alice.project("turned"), tiff(array, photometric="minisblack"), "turned.tif").json
    job, result, found = segmented(alice, image, options={"augment": "flips"})
    assert job["options"] == {"augment": "flips"} and result["options"]["augment"] == "flips" and len(found) == count


def test_what_makes_no_sense_is_refused(stack, alice):
    project = alice.project("refused")
    image = alice.upload(project, tiff(np.stack([blobs(3, 1)[0]] * 2), photometric="minisblack", metadata=None), "two.tif").json
    path, batch = f"/api/images/{image['id']}/segmentation", f"/api/projects/{project['id']}/segmentation"
    for options, status, words in (
            ({"minArea": -1}, 400, "options.minArea must be a whole number from 0 to"),
            ({"maxArea": 1.5}, 400, "options.maxArea"),
            ({"maxHoleArea": "5"}, 400, "options.maxHoleArea"),
            ({"minArea": 9, "maxArea": 5}, 400, "options.maxArea must be 0"),
            ({"augment": "twice"}, 400, "options.augment must be"),
            ({"page": 0}, 400, "options.page must be a whole number from 1 to"),
            ({"channel": 1, "mix": [1]}, 400, "options.channel and options.mix"),
            ({"mix": [0, 0]}, 400, "options.mix must be a list"),
            ({"mix": [1] * 17}, 400, "options.mix must be a list of 1 to 16"),
            ({"page": 2, "z": 1}, 400, "options.page cannot"),
            ({"tiles": 3}, 400, "options.tiles"),
            ([], 400, "options must be an object"),
            ({"page": 3}, 422, "options.page goes from 1 to 2"),
            ({"channel": 2}, 422, "options.channel or options.mix goes from 1 to 1"),
            ({"time": 2}, 422, "options.time goes from 1 to 1")):
        for answer in (alice.post(path, {"options": options}), alice.post(batch, {"all": True, "options": options})):
            assert answer.status == status and words in answer.json["detail"], (options, answer)
    check(alice.post(path, {"options": {"page": 3}}), "POST", "/api/images/{imageId}/segmentation")
    assert alice.get(f"/api/images/{image['id']}").json["job"] is None
    # a model of which its worker said that it cannot be turned
    stack.sql("INSERT INTO models (name, version, title, description, sha256, manifest, options) VALUES "
              "('stiff', '1', 't', 'd', 'x', '{}', '{\"augments\": [\"none\"]}')")
    try:
        answer = alice.post(path, {"model": "stiff", "options": {"augment": "flips"}})
        assert answer.status == 422 and answer.code == "model_option_refused", answer
    finally:
        stack.sql("DELETE FROM models WHERE name = 'stiff'")


def test_a_batch_takes_options_and_a_retry_keeps_them(stack, alice):
    project = alice.project("batch")
    made = [alice.upload(project, tiff(blobs(5, n)[0], photometric="minisblack"), f"{n}.tif").json for n in (1, 2)]
    answer = alice.post(f"/api/projects/{project['id']}/segmentation",
                        {"all": True, "model": MODEL, "options": {"minArea": 1000000}})
    assert answer.status == 202 and answer.json["accepted"] == 2, answer
    for image in made:
        job = alice.wait_job(alice.get(f"/api/images/{image['id']}").json["job"]["id"])
        assert job["state"] == "completed" and job["objectCount"] == 0 and job["options"] == {"minArea": 1000000}
    stack.sql("DELETE FROM segmentations WHERE job_id = %s", job["id"])
    stack.sql("UPDATE jobs SET state = 'failed' WHERE id = %s", job["id"])
    assert alice.post(f"/api/segmentation/job/{job['id']}/retry").status == 202
    assert alice.wait_job(job["id"])["options"] == {"minArea": 1000000}


def test_models_say_what_they_take(stack, alice):
    answer = check(alice.get("/api/models"), "GET", "/api/models").json
    offers = {m["name"]: m["options"] for m in answer["items"]}
    assert offers[MODEL]["minArea"] == 20 and offers[MODEL]["maxHoleArea"] == 10
    assert set(offers["nuclei"]["augments"]) == {"none", "flips", "rotations"}


def test_a_worker_that_ignores_options_commits_nothing(stack, alice):
    """What a worker of an earlier version would do: write a segmentation without options for a job that has some."""
    image = alice.upload(alice.project("old"), tiff(blobs(3, 1)[0], photometric="minisblack"), "old.tif").json
    job, _, _ = segmented(alice, image, options={"minArea": 30})
    with pytest.raises(Exception, match="does not know the options"):
        stack.sql("INSERT INTO segmentations (image_id, job_id, attempt, model, model_version, "
                  " model_sha256, threshold, detect_holes, width, height, object_count) "
                  "SELECT image_id, id, 1, model, '1', 'x', 0.5, true, 1, 1, 0 FROM jobs WHERE id = %s", job["id"])


def test_reuse_depends_on_the_options(own_stack):
    s = own_stack(workers=1, env={"RESULT_CACHE": "true", "SEGWORKER_MODELS": MODEL})
    c = Client(s).register()
    data = tiff(np.stack([blobs(5, 5)[0], blobs(9, 9)[0]]), photometric="minisblack", metadata=None)

    def cached(**options):
        image = c.upload(c.project(), data, "same.tif").json
        return segmented(c, image, options=options)[1]["cached"]

    assert cached() is False and cached() is True
    assert cached(minArea=20, maxArea=0, augment="none") is True  # said aloud what holds anyway
    for options in {"minArea": 60}, {"maxArea": 300}, {"maxHoleArea": 50}, {"augment": "flips"}, {"page": 2}, {"channel": 1}, {"mix": [2]}:
        assert cached(**options) is False, options
    assert cached(minArea=60) is True and cached(page=2) is True
