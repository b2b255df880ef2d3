"""The compose files with the project's own images: start, scale, update while people work."""
import hashlib
import os
import pathlib
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import containers  # noqa: E402
import images  # noqa: E402
from api import WebSocket  # noqa: E402

pytestmark = pytest.mark.skipif(not containers.engine(), reason="no Docker engine runs here")
DATA = pathlib.Path(os.environ.get("SPHEROSEG_DATA", containers.ROOT.parent / "shared/data"))
IMAGES = int(os.environ.get("OPS_IMAGES", "200"))


@pytest.fixture(scope="module", name="stack")
def fixture_stack():
    s = containers.Containers("spheroseg-ops-compose")
    try:
        yield s.up(gateways=2, workers=2)
    finally:
        s.down()


class Visitor:
    """Looks at the site RATE times a second, on a new connection each time, and counts what goes wrong; and keeps WebSockets
    open, each opened again when it ends, as a browser does."""
    RATE, SHARES, SOCKETS = 25, 4, 3

    def __init__(self, person):
        self.person, self.over, self.lock = person, threading.Event(), threading.Lock()
        self.sent, self.failed, self.gap, self.said = 0, 0, 0.0, []
        self.heard, self.reopened, self.deaf = 0, 0, 0.0
        self.began = self.last = time.monotonic()
        self.took = 0.0
        self.threads = [threading.Thread(target=self.look, args=(n,), daemon=True) for n in range(self.SHARES)]
        self.threads += [threading.Thread(target=self.listen, daemon=True) for _ in range(self.SOCKETS)]
        for thread in self.threads:
            thread.start()

    def look(self, n):
        pause, turn = self.SHARES / self.RATE, time.monotonic() + n / self.RATE
        while not self.over.wait(max(0.0, turn - time.monotonic())):
            turn = max(turn + pause, time.monotonic() - pause)
            problem = None
            try:
                answer = self.person.get("/api/projects?limit=1", timeout=10)
                if answer.status != 200:
                    problem = repr(answer)
            except Exception as e:  # noqa: BLE001  whatever it is, a person would have seen it
                problem = repr(e)
            with self.lock:
                self.sent += 1
                now = time.monotonic()
                if problem:
                    self.failed += 1
                    self.said.append(problem)
                else:
                    self.gap, self.last = max(self.gap, now - self.last), now

    def listen(self):
        lost, opened = time.monotonic(), False
        while not self.over.is_set():
            try:
                socket = WebSocket(self.person, cookies=False, token=self.person.token)
                if socket.status != 101:
                    raise OSError(f"the WebSocket was refused with {socket.status}")
                with self.lock:
                    self.reopened += opened
                    self.deaf = max(self.deaf, time.monotonic() - lost) if opened else self.deaf
                opened = True
                while not self.over.wait(0.2):
                    socket.send({"type": "ping"})
                    if socket.receive(10) is None:
                        break
                    lost = time.monotonic()
                    with self.lock:
                        self.heard += 1
                socket.close()
            except (OSError, EOFError, AssertionError):
                self.over.wait(0.2)

    def end(self):
        """Stops, and says how it went."""
        self.over.set()
        for thread in self.threads:
            thread.join(60)
        self.took = self.took or time.monotonic() - self.began
        return (f"{self.sent} requests ({self.sent / self.took:.0f} a second), {self.failed} failed, longest gap {self.gap:.2f} s; "
                f"{self.SOCKETS} WebSockets, {self.heard} answers, opened again {self.reopened} times, within {self.deaf:.2f} s")


def real_pictures(number):
    """Photographs of cells where they are at hand (../shared/data, or SPHEROSEG_DATA), else drawn ones, and what they are."""
    wanted = [("nuclei", "dsb2018", number * 8 // 10), ("nuclei", "bbbc039", 24), ("spheroid", "spheroid_single", 43),
              ("phase_contrast", "usiigaci", 9)]
    found = []
    for model, name, most in wanted:
        files = [f for f in sorted((DATA / name / "train").rglob("*")) if f.suffix in (".png", ".tif") and "mask" not in str(f.relative_to(DATA))]
        found += [(model, f.name, f.read_bytes()) for f in files[:most]]
    if len(found) >= number:
        # So that each kind is among them.
        found.sort(key=lambda entry: hashlib.sha256(entry[1].encode()).digest())
        return found[:number], "real images"
    drawn = [images.png(images.nuclei(width=256, height=256, count=12, seed=n)[0]) for n in range(number)]
    return [("nuclei", f"drawn{n}.png", data) for n, data in enumerate(drawn)], f"DRAWN images ({DATA} has too few real ones)"


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
    pictures, kind = real_pictures(IMAGES)
    said_by_update = []

    def run_update():
        done = stack.script("rolling-update.sh", "test", check=False)
        ended = stack.sql("SELECT count(*) FILTER (WHERE state = 'completed'), count(*) FROM jobs")
        said_by_update.extend([done.stderr, f"{done.returncode} is the update's status; completed and submitted when it was over: {ended}"])
    update = threading.Thread(target=run_update, daemon=True)
    visitor = Visitor(person)
    start = time.monotonic()
    try:
        jobs = []
        for n, (model, name, data) in enumerate(pictures):
            answer = person.call("POST", f"/api/projects/{project}/images?name={name}", body=data, headers={"Content-Type": "application/octet-stream"})
            assert answer.status == 201, answer
            answer = person.post(f"/api/images/{answer.json['id']}/segmentation", {"model": model})
            assert answer.status == 202, answer
            jobs.append(answer.json["jobId"])
            if n == IMAGES // 4:
                stack.script("scale.sh", "segworker", "4")
            if n == IMAGES // 2:
                update.start()
        update.join(900)
        print(*said_by_update)
        assert said_by_update and said_by_update[-1].startswith("0 is"), "the update has failed"
        containers.settled(stack, 1200)
    finally:
        said = visitor.end()
    states = stack.sql("SELECT state, count(*) FROM jobs GROUP BY 1")
    doubled = stack.sql("SELECT count(*) FROM (SELECT image_id FROM segmentations GROUP BY 1 HAVING count(*) > 1) x")
    found = stack.sql("SELECT count(*), sum(object_count) FROM segmentations")
    print(f"{IMAGES} {kind} in {time.monotonic() - start:.0f} s, jobs {states}, segmentations and objects {found}; {said}")
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
        # One of the two gateways has it, and tells of its end on the debug log.
        WebSocket(person, cookies=False, token=person.token).close()
        return '"level":"debug"' in containers.run("docker", "logs", "--since", "60s", gateway).stderr
    containers.wait_until(speaks, 30, "a debug line")
    containers.run("docker", "kill", "-s", "USR1", gateway)
