"""A model that never answers: its job ends by its time-out, and the worker is usable again after a restart."""
import shutil
import sys
import pathlib

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import json  # noqa: E402

from stack import MODELS  # noqa: E402
import images  # noqa: E402
import pytest  # noqa: E402
from api import Client  # noqa: E402
from harness import Stack, wait_until  # noqa: E402

IMAGE = images.png(images.nuclei()[0])


@pytest.fixture
def place(tmp_path):
    shutil.copytree(MODELS / "test-hanging", tmp_path / "test-hanging")
    tmp_path.chmod(0o755)
    return tmp_path


def make(place, **env):
    return Stack(workers=1, env={"MODELS_DIR": str(place), "ML_SERVICE_TIMEOUT": "1000", "JOB_MAX_ATTEMPTS": "1",
                                 "STOP_TIMEOUT": "4", **env})


def test_a_hanging_model_ends_by_the_time_out(place):
    """The usual case: what hangs still asks whether it should stop."""
    s = make(place)
    try:
        s.start()
        c = Client(s).register()
        image = c.upload(c.project(), IMAGE).json
        (place / "test-hanging/broken").touch()
        job = c.wait_job(c.segment(image)["jobId"], seconds=20)
        assert job["state"] == "failed" and job["error"]["code"] == "job_timeout"
        assert s.workers[0].running
        (place / "test-hanging/broken").unlink()
        assert c.wait_job(c.segment(image)["jobId"], seconds=20)["state"] == "completed"
    finally:
        s.stop()


def test_a_stuck_runtime_costs_one_job_and_a_restart(place):
    """The bad case: a call that never returns. The lease is not renewed for ever, nobody else's job is lost."""
    manifest = json.loads((place / "test-hanging/model.json").read_text())
    manifest["test"]["deaf"] = True
    (place / "test-hanging/model.json").write_text(json.dumps(manifest))
    s = make(place)
    try:
        s.start()
        c = Client(s).register()
        p = c.project()
        image, other = (c.upload(p, IMAGE, f"{n}.png").json for n in range(2))
        (place / "test-hanging/broken").touch()
        stuck = c.segment(image)["jobId"]
        wait_until(lambda: s.sql("SELECT 1 FROM jobs WHERE id = %s AND state = 'active'", stuck), 20, "the claim")
        waiting = c.segment(other)["jobId"]
        (place / "test-hanging/broken").unlink()   # too late for the first
        job = c.wait_job(stuck, seconds=30)
        assert job["state"] == "failed" and job["error"]["code"] == "job_timeout"
        assert s.workers[0].popen.wait(15) == 1
        assert "stuck past its time-out" in s.workers[0].log.read_text()
        assert c.get(f"/api/segmentation/job/{waiting}").json["state"] == "queued"
        s.workers[0].start()
        assert c.wait_job(waiting, seconds=30)["state"] == "completed"
        assert s.sql("SELECT count(*), count(DISTINCT image_id) FROM segmentations") == [(1, 1)]
    finally:
        s.stop()
