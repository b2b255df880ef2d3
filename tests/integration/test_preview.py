"""Outlines of finished regions are shown while the rest of a large image is still processed, and are never the result."""
import json
import signal
import struct

import images
import pytest
from api import Client
from harness import ROOT, wait_until
from test_contract import check

MODEL = "test-windows"


def objects(stream):
    """idx -> (area, geometry) of the viewer's binary form."""
    assert stream[:4] == b"SGP1"
    (n,) = struct.unpack_from("<I", stream, 4)
    at, out = 8, {}
    for _ in range(n):
        idx, area, _, size = struct.unpack_from("<IffI", stream, at)
        out[idx] = area, stream[at + 16:at + 16 + size]
        at += 16 + size
    assert at == len(stream)
    return out


@pytest.fixture
def slow(own_stack):
    """One worker with a model that takes its time for each tile; every image runs in small windows."""
    s = own_stack(workers=1, start=False, env={"SEGWORKER_WINDOW": "128", "JOB_LEASE": "30000"})
    folder = s.dir / "models" / MODEL
    folder.mkdir(parents=True)
    manifest = json.loads((ROOT / "tests/chaos/models/test-broken/model.json").read_text())
    manifest.update(name=MODEL, title="Slow", description="Waits at each tile.")
    manifest["test"].update(milliseconds=120, jitter=0, failRate=0)
    manifest["test"]["while"] = ""
    (folder / "model.json").write_text(json.dumps(manifest))
    s.env["MODELS_DIR"] = str(s.dir / "models")
    return s.start()


def test_a_preview_is_shown_while_the_job_runs_and_never_after(slow):
    c, mallory = Client(slow).register(), Client(slow).register()
    array, count = images.nuclei(width=256, height=1500, count=60, seed=4)
    image = c.upload(c.project(), images.png(array), "tall.png").json

    def look(job, **of):
        query = "&".join(f"{k}={v}" for k, v in of.items())
        return check(c.get(f"/api/segmentation/job/{job}/preview?{query}"), "GET", "/api/segmentation/job/{jobId}/preview")

    def begin():
        """A new job, its worker stopped in the middle once something can be seen; and that."""
        job = c.segment(image)["jobId"]

        def seen():
            answer = look(job)
            assert c.get(f"/api/segmentation/job/{job}").json["state"] in ("queued", "active")
            return answer if objects(answer.body) else None
        answer = wait_until(seen, 60, "a preview")
        slow.workers[0].kill(signal.SIGSTOP)
        return job, answer

    def rows():
        return slow.sql("SELECT count(*) FROM previews")[0][0]

    # While it runs: some objects, no result; nobody else sees them.
    job, first = begin()
    early = objects(first.body)
    assert 0 < len(early) < count and rows() > 0
    assert slow.sql("SELECT count(*) FROM segmentations") == slow.sql("SELECT count(*) FROM objects") == [(0,)]
    assert c.get(f"/api/images/{image['id']}/polygons").code == "not_segmented"
    assert c.get(f"/api/images/{image['id']}").json["objectCount"] is None
    assert mallory.get(f"/api/segmentation/job/{job}/preview").status == 404
    of, after = first.headers["X-Preview"], first.headers["X-Next-After"]
    # What is held is not sent again, unless it is of another attempt.
    assert set(objects(look(job, of=of, after=after).body)).isdisjoint(early)
    assert set(objects(look(job, of="another", after=after).body)) >= set(early)
    assert c.get(f"/api/segmentation/job/{job}/preview?after=65").status == 400

    # It ends: the result holds what was shown, and the preview is gone.
    slow.workers[0].kill(signal.SIGCONT)
    assert c.wait_job(job)["state"] == "completed"
    done = look(job, of=of)
    assert objects(done.body) == {} and done.headers["X-Preview"] is None
    final = objects(c.polygons(image, "&format=binary").body)
    assert len(final) >= count - 3 and early.items() <= final.items()
    wait_until(lambda: rows() == 0, 30, "the parts being deleted")

    # Cancelled: gone, and the old result stays.
    job, _ = begin()
    assert c.delete(f"/api/segmentation/job/{job}").status == 202
    slow.workers[0].kill(signal.SIGCONT)
    assert c.wait_job(job)["state"] == "cancelled"
    assert objects(look(job).body) == {} and objects(c.polygons(image, "&format=binary").body) == final
    wait_until(lambda: rows() == 0, 30, "the parts being deleted")

    # The claim is another's: what the worker wrote is not shown, and what it still writes is refused.
    job, first = begin()
    slow.sql("UPDATE jobs SET token = repeat('f', 64), attempt = attempt + 1 WHERE id = %s", job)
    other = look(job, of=first.headers["X-Preview"], after=0)
    assert objects(other.body) == {} and other.headers["X-Preview"] not in (None, first.headers["X-Preview"])
    slow.workers[0].kill(signal.SIGCONT)
    wait_until(lambda: rows() == 0, 60, "the worker giving up")
    assert objects(c.polygons(image, "&format=binary").body) == final
