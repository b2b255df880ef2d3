"""The compose files with the project's own images: start, scale, update while people work."""
import os
import pathlib
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import containers  # noqa: E402
import images  # noqa: E402

pytestmark = pytest.mark.skipif(not containers.engine(), reason="no Docker engine runs here")
IMAGES = int(os.environ.get("OPS_IMAGES", "200"))


@pytest.fixture(scope="module", name="stack")
def fixture_stack():
    s = containers.Containers("spheroseg-ops-compose")
    try:
        yield s.up(gateways=2, workers=2)
    finally:
        s.down()


class Visitor(threading.Thread):
    """Looks at the site all the time and counts what goes wrong."""

    def __init__(self, stack, person):
        super().__init__(daemon=True)
        self.stack, self.person, self.over = stack, person, threading.Event()
        self.sent, self.failed, self.gap, self.said = 0, 0, 0.0, []

    def run(self):
        last = time.monotonic()
        while not self.over.wait(0.05):
            self.sent += 1
            try:
                answer = self.person.get("/api/projects?limit=1", timeout=10)
                if answer.status == 200:
                    self.gap, last = max(self.gap, time.monotonic() - last), time.monotonic()
                    continue
                self.said.append(repr(answer))
            except Exception as e:  # noqa: BLE001  whatever it is, a person would have seen it
                self.said.append(repr(e))
            self.failed += 1


def test_containers_are_hardened(stack):
    for service in ("gateway", "segworker", "nginx", "redis", "postgres"):
        for container in stack.ids(service):
            form = "{{.HostConfig.ReadonlyRootfs}} {{.Config.User}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}"
            read_only, user, dropped, options = containers.run("docker", "inspect", "-f", form, container).stdout.split(maxsplit=3)
            assert read_only == "true" and user.split(":")[0] not in ("", "0", "root") and dropped == "[ALL]"
            assert "no-new-privileges" in options


def test_nothing_secret_shows(stack):
    for service in ("gateway", "segworker", "postgres", "redis"):
        environment = containers.run("docker", "inspect", "-f", "{{json .Config.Env}} {{json .Config.Cmd}}", stack.ids(service)[0]).stdout
        assert "://spheroseg:" not in environment and "requirepass" not in environment
    made = stack.compose("run", "--rm", "--entrypoint", "cat", "secrets", "/secrets/made/postgres_password", "/secrets/made/redis_password").stdout
    logs = stack.compose("logs", "--no-color").stdout
    for secret in made.split():
        assert secret not in logs


def test_scale_and_update_while_people_work(stack):
    person = stack.client()
    person.register()
    project = person.post("/api/projects", {"title": "Plate"}).json["id"]
    picture = images.png(images.nuclei(width=256, height=256, count=12, seed=7)[0])
    visitor = Visitor(stack, person)
    visitor.start()
    start = time.monotonic()
    try:
        jobs = []
        for n in range(IMAGES):
            answer = person.call("POST", f"/api/projects/{project}/images?name=i{n}.png", body=picture, headers={"Content-Type": "application/octet-stream"})
            assert answer.status == 201, answer
            answer = person.post(f"/api/images/{answer.json['id']}/segmentation", {"model": "nuclei"})
            assert answer.status == 202, answer
            jobs.append(answer.json["jobId"])
            if n == IMAGES // 4:
                stack.script("scale.sh", "segworker", "4")
        update = stack.script("rolling-update.sh", "test")
        print(update.stderr)
        containers.settled(stack, 600)
    finally:
        visitor.over.set()
    visitor.join()
    states = stack.sql("SELECT state, count(*) FROM jobs GROUP BY 1")
    doubled = stack.sql("SELECT count(*) FROM (SELECT image_id FROM segmentations GROUP BY 1 HAVING count(*) > 1) x")
    print(f"{IMAGES} images in {time.monotonic() - start:.0f} s, jobs {states}; requests {visitor.sent}, failed {visitor.failed}, "
          f"longest gap {visitor.gap:.2f} s")
    assert states == [("completed", str(IMAGES))]
    assert doubled == [("0",)]
    assert visitor.failed == 0, visitor.said[:5]
    assert len(stack.ids("segworker")) == 4 and len(stack.ids("gateway")) == 2


def test_health_script(stack):
    assert stack.script("healthcheck.sh").returncode == 0
    stack.compose("stop", "-t", "5", "redis")
    try:
        broken = stack.script("healthcheck.sh", check=False)
        assert broken.returncode == 1 and "redis" in broken.stdout
    finally:
        stack.compose("start", "redis")
    wait = containers.wait_until
    wait(lambda: stack.script("healthcheck.sh", check=False).returncode == 0, 120, "everything well again")


def test_debug_log_by_signal(stack):
    gateway = stack.ids("gateway")[0]
    containers.run("docker", "kill", "-s", "USR1", gateway)
    person = stack.client()
    person.register()

    def speaks():
        person.get("/api/projects")  # one of the two gateways answers
        return '"level":"debug"' in containers.run("docker", "logs", "--since", "60s", gateway).stderr
    containers.wait_until(speaks, 30, "a debug line")
    containers.run("docker", "kill", "-s", "USR1", gateway)
