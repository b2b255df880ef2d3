"""Jobs that a worker claimed together with one that takes long: they are not held up, lost or charged for it."""
import json
import shutil
import signal

import images
import pytest
from api import Client
from harness import ROOT, wait_until

WARM, JOBS = 8, 24
AHEAD_MS = 2000  # so generous that a run is quick on any machine; what has not begun goes back after five seconds
SMALL = images.png(images.nuclei(width=64, height=64, count=3)[0])


class Lab:
    """A worker that has measured its model as quick, and images to give to it; `stuck` makes runs hang from now on."""

    def __init__(self, stack):
        self.stack = stack
        self.stuck = stack.dir / "models" / "test-hanging" / "broken"
        shutil.copytree(ROOT / "tests/chaos/models/test-hanging", self.stuck.parent)
        stack.env.update(MODELS_DIR=str(stack.dir / "models"), QUEUE_CLAIM_AHEAD=str(AHEAD_MS), STOP_TIMEOUT="4")
        stack.start()
        self.client = Client(stack).register()
        for images_of_it in (WARM, JOBS):
            self.project = self.client.project()
            for i in range(images_of_it):
                assert self.client.upload(self.project, SMALL, f"{i}.png").status == 201
            if images_of_it == WARM:
                stack.add_worker()
                self.submit_all()
                self.wait("completed", WARM)

    def submit_all(self):
        answer = self.client.post(f"/api/projects/{self.project['id']}/segmentation", {"all": True, "model": "test-hanging"})
        assert answer.status == 202, answer

    def count(self, state, condition="true"):
        return self.stack.sql(f"SELECT count(*) FROM jobs WHERE state = %s AND project_id = %s AND {condition}", state,
                              self.project["id"])[0][0]

    def wait(self, state, n, condition="true"):
        wait_until(lambda: self.count(state, condition) == n, 60, f"{n} {state} jobs, {condition}")

    def claimed(self):
        """Submits all while runs hang; returns the jobs that the worker holds, the one that runs first."""
        self.stuck.touch()
        self.submit_all()
        wait_until(lambda: self.count("active") > 1, 30, "jobs that are claimed together")
        return [i for i, in self.stack.sql("SELECT id FROM jobs WHERE state = 'active' ORDER BY left(token, 20) COLLATE \"C\"")]

    def metric(self, name):
        return self.stack.metric(self.stack.workers[0].metrics_port, name)

    def finish(self, n):
        self.stuck.unlink(missing_ok=True)
        self.wait("completed", n)
        assert json.loads(self.stack.redis_cli("--json", "HGETALL", "sg:held") or "{}") in ({}, [])


@pytest.fixture
def lab(own_stack):
    return Lab(own_stack(start=False, workers=0))


def test_what_waits_behind_a_long_run_goes_back_and_can_be_cancelled(lab):
    held = lab.claimed()
    assert 2 <= len(held) <= 12   # of those that would stay behind at most half
    cancelled = held[-1]
    assert lab.client.delete(f"/api/segmentation/job/{cancelled}").status in (200, 202, 204)
    lab.wait("active", 1)         # the one that hangs
    lab.wait("queued", JOBS - 2, "attempt = 0")
    assert lab.client.wait_job(cancelled)["state"] == "cancelled"
    wait_until(lambda: lab.metric("spheroseg_jobs_returned_unbegun_total") == len(held) - 1, 30, "the count")
    assert lab.metric("spheroseg_jobs_claimed_ahead_total") == len(held) - 1
    lab.stuck.unlink()   # first: the worker goes on at once when the run that hangs for ever is cancelled
    assert lab.client.delete(f"/api/segmentation/job/{held[0]}").status in (200, 202, 204)
    lab.finish(JOBS - 2)
    assert lab.count("completed", "attempt = 1") == JOBS - 2


def test_a_stop_hands_back_what_has_not_begun_at_once(lab):
    held = lab.claimed()
    worker = lab.stack.workers[0]
    worker.kill(signal.SIGTERM)
    wait_until(lambda: lab.count("queued", "attempt = 0") >= JOBS - 1, 60, "what has not begun being queued")
    assert worker.popen.wait(timeout=60) == 0
    assert lab.count("queued", "attempt = 0") == JOBS and len(held) > 1
    lab.stuck.unlink()
    lab.stack.add_worker()
    lab.finish(JOBS)
    assert lab.count("completed", "attempt = 1") == JOBS


def test_a_crash_costs_an_attempt_only_to_the_job_that_ran(lab):
    held = lab.claimed()
    lab.stack.workers[0].kill(signal.SIGKILL)
    lab.stack.workers[0].popen.wait()
    lab.stuck.unlink()
    lab.stack.add_worker()
    lab.wait("completed", JOBS)
    rows = dict(lab.stack.sql("SELECT id, attempt FROM jobs WHERE project_id = %s", lab.project["id"]))
    assert rows.pop(held[0]) == 2
    assert set(rows.values()) == {1} and len(rows) == JOBS - 1
