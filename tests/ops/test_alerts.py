"""Every alert on the running stack by its cause, seen by the people who are told (Slack and e-mail), and over with it.

The rules are a copy in which every `for:` is a FACTORth of what it is and nothing else is changed. Two causes would need
hours, so time is turned back instead of waited for: the age of a job (OldestJobWaits, 15 minutes) and of a backup
(BackupTooOld, 26 hours). Grafana is left out: its image is not needed for what is asked here, only its dashboards.
"""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import containers  # noqa: E402
import images  # noqa: E402
import receivers  # noqa: E402
from harness import free_port, wait_until  # noqa: E402

pytestmark = pytest.mark.skipif(not containers.engine(), reason="no Docker engine runs here")
ROOT = containers.ROOT
FACTOR = 20
LOGIN = ("spheroseg", "a-password-of-the-mail-server")
UNITS = {"s": 1, "m": 60, "h": 3600}
RULES = {rule["alert"]: rule for group in yaml.safe_load((ROOT / "compose/prometheus/rules/spheroseg.yml").read_text())["groups"]
         for rule in group["rules"]}
URGENT = {name for name, rule in RULES.items() if rule["labels"]["severity"] == "critical"}
seen_firing, seen_over = {}, {}


def shortened(text):
    """The rules with every `for:` a FACTORth."""
    def shorter(m):
        return f"for: {int(m[1]) * UNITS[m[2]] * 1000 // FACTOR}ms"
    out, n = re.subn(r"for: (\d+)([smh])\b", shorter, text)
    assert n == len(RULES)
    return out


def fragile_model(folder):
    """A model that fails on an image that is mostly bright, and on no other."""
    import torch
    import toy_models

    class Fragile(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if bool(x.mean() > 0.8):
                raise RuntimeError("too bright")
            inside = torch.nn.functional.avg_pool2d(x, [3, 3], stride=1, padding=1)
            return torch.cat([inside, inside], 1)
    toy_models.write(folder, "fragile", Fragile(), {"kind": "foreground_distance", "channels": ["foreground", "distance"]},
                     {"threshold": 0.5, "seedThreshold": 0.55, "seedMinArea": 6, "minArea": 15, "distSigma": 0.7, "maxHoleArea": 10})


def bright_picture(n):
    picture = np.full((128, 128), 200 + n, np.uint8)
    picture[:, :12] = 0
    return picture


def small_disk(folder):
    """A file system of 16 MB on the host that can be filled; None where none can be mounted."""
    folder.mkdir()
    image = folder.parent / "disk.img"
    with open(image, "wb") as f:
        f.truncate(16 << 20)
    for argv in (["mkfs.ext4", "-q", "-m", "0", image], ["mount", "-o", "loop", image, folder]):
        if subprocess.run([str(a) for a in argv], capture_output=True, check=False).returncode != 0:
            return None
    return folder


class Watched(containers.Containers):
    def __init__(self):
        super().__init__(f"spheroseg-ops-alerts-{os.getpid()}", ("docker-compose.yml", "docker-compose.monitoring.yml"))
        self.dir.chmod(0o755)
        address = containers.bridge_address()
        self.told = receivers.Receivers(address, LOGIN)
        self.disk = small_disk(self.dir / "disk")
        self.prometheus = f"http://127.0.0.1:{free_port()}"
        secrets, rules = self.dir / "secrets", self.dir / "prometheus"
        secrets.mkdir()
        (secrets / "slack_url").write_text(f"http://{address}:{self.told.slack.server_address[1]}/hook\n")
        (secrets / "smtp_password").write_text(LOGIN[1] + "\n")
        shutil.copytree(ROOT / "compose/prometheus", rules)
        path = rules / "rules/spheroseg.yml"
        path.write_text(shortened(path.read_text()))
        models = self.dir / "models"
        # Those of the image, and one more.
        made = containers.run("docker", "create", "spheroseg/segworker:test").stdout.strip()
        containers.run("docker", "cp", f"{made}:/usr/local/share/spheroseg/models", models)
        containers.run("docker", "rm", made)
        fragile_model(models)
        containers.run("chmod", "-R", "a+rX", rules, models)
        self.add({
            "secrets": {"volumes": [f"{secrets}:/host-secrets:ro"]},
            "prometheus": {"volumes": [f"{rules}:/etc/prometheus:ro"]},
            "segworker": {"volumes": [f"{models}:/usr/local/share/spheroseg/models:ro"], "environment": {"RESULT_CACHE": "false"}},
        }, PROMETHEUS_PORT=self.prometheus.rsplit(":", 1)[1], ALERTMANAGER_PORT=free_port(), GRAFANA_PORT=free_port(), HOST_MOUNTS="ro",
            HEARTBEAT_INTERVAL="15", ALERT_GROUP_WAIT="1s", SMTP_HOST=f"{address}:{self.told.mail.server_address[1]}", SMTP_TLS="false",
            SMTP_USER=LOGIN[0], ALERT_EMAIL="operators@example.org")

    def services(self):
        return [s for s in self.compose("config", "--services").stdout.split() if s != "grafana"]

    def up(self, gateways=1, workers=1):
        self.compose("up", "-d", "--no-build", "postgres", "redis", "gateway")  # first: the others wait for these anyway
        self.compose("up", "-d", "--no-build", *self.services())
        return self.trusting()

    def ask(self, expression):
        url = f"{self.prometheus}/api/v1/query?query={urllib.parse.quote(expression)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    def inside(self, service, *argv):
        return containers.run("docker", "exec", self.ids(service)[0], *argv).stdout

    def in_secrets(self, script):
        return self.compose("run", "--rm", "--entrypoint", "sh", "secrets", "-euc", script).stdout

    def down(self):
        super().down()
        self.told.close()
        if self.disk:
            subprocess.run(["umount", self.disk], check=False)


@pytest.fixture(scope="module", name="stack")
def fixture_stack():
    s = Watched()
    try:
        s.up()
        wait_until(lambda: all(t["value"][1] == "1" for t in s.ask("up")) and len(s.ask("up")) >= 7, 240, "every target up")
        wait_until(lambda: s.ask("spheroseg_heartbeat_success_timestamp_seconds > 0"), 300, "the first heartbeat")
        yield s
    finally:
        s.down()


@contextlib.contextmanager
def fires(stack, *alerts, seconds=150, before=None):
    """Within it the cause begins; at its end the people have been told (after the first `before` messages)."""
    before = len(stack.told.seen) if before is None else before
    start = time.monotonic()
    yield
    for alert in alerts:
        for way in ("slack", "mail") if alert in URGENT else ("slack",):
            wait_until(lambda way=way, alert=alert: stack.told.has(way, "FIRING", alert, before), seconds, f"{alert} told by {way}")
        seen_firing[alert] = time.monotonic() - start


def over(stack, before, *alerts, seconds=240):
    start = time.monotonic()
    for alert in alerts:
        for way in ("slack", "mail") if alert in URGENT else ("slack",):
            wait_until(lambda way=way, alert=alert: stack.told.has(way, "RESOLVED", alert, before), seconds, f"{alert} over by {way}")
        seen_over[alert] = time.monotonic() - start


# ---- the series ----

def expressions():
    for name, rule in RULES.items():
        yield f"alert {name}", rule["expr"]
    for path in sorted((ROOT / "compose/grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"panel {path.stem}: {panel['title']}", target["expr"]


def selectors(expression):
    return set(re.findall(r"\b((?:(?:spheroseg|node|pg|redis|process)_[A-Za-z0-9_]+|up)(?:\{[^}]*\})?)(?!\w)", expression))


def test_every_expression_finds_its_series(stack):
    """A first heartbeat has gone through by now: people's requests, jobs and their stages have left their marks. What counts
    failures is there all the same, at 0, so that the first failure is seen."""
    wanted = {}
    for where, expression in expressions():
        assert selectors(expression), f"{where} names no series that is known here"
        for series in selectors(expression):
            wanted.setdefault(series, where)

    def missing():
        return {series: where for series, where in wanted.items() if not stack.ask(series)}
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not missing(), 90, "every series")
    assert not missing(), missing()
    print(f"{len(wanted)} series found")


def test_nothing_fires_when_all_is_well(stack):
    assert stack.ask('ALERTS{alertstate="firing"}') == []


# ---- the alerts ----

def test_servers_stopped(stack):
    """nginx is away for over five minutes (HeartbeatFailed); meanwhile the others go and come back, two by two."""
    start = len(stack.told.seen)
    stack.compose("stop", "-t", "2", "nginx")
    try:
        for services, alerts in ((("segworker", "redis-exporter"), ("NoWorker", "TargetDown")),
                                 (("redis", "postgres"), ("RedisDown", "DatabaseDown")), (("gateway",), ("GatewayDown",))):
            before = len(stack.told.seen)
            try:
                with fires(stack, *alerts):
                    stack.compose("stop", "-t", "10", *services)
            finally:
                stack.compose("start", *services)
            over(stack, before, *alerts)
        with fires(stack, "HeartbeatFailed", seconds=400, before=start):
            pass
    finally:
        stack.compose("start", "nginx")
    over(stack, start, "HeartbeatFailed")


class Crowd:
    """People who ask for their projects all the time."""

    def __init__(self, person, threads):
        self.person, self.end, self.statuses, self.pause = person, threading.Event(), {}, 0.0
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]
        for t in self.threads:
            t.start()

    def run(self):
        while not self.end.wait(self.pause):
            try:
                status = self.person.get("/api/projects?limit=1", timeout=60).status
            except OSError as e:
                status = type(e).__name__
            self.statuses[status] = self.statuses.get(status, 0) + 1

    def stop(self):
        self.end.set()
        for t in self.threads:
            t.join(90)


def test_a_database_that_does_not_answer_in_time(stack):
    """A table is locked: requests wait and hold their connections, and in the end they fail."""
    before = len(stack.told.seen)
    person = stack.client()
    person.register()
    crowd, lock_over = Crowd(person, 30), threading.Event()

    def lock():
        while not lock_over.is_set():
            with contextlib.suppress(AssertionError):
                stack.sql("BEGIN; LOCK TABLE projects IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(20); COMMIT")
    lockers = [threading.Thread(target=lock, daemon=True) for _ in range(2)]  # one waits while the other holds it
    for locker in lockers:
        locker.start()
    try:
        with fires(stack, "FewDatabaseConnections", "SlowRequests", "HighErrorRate", seconds=240):
            pass
    finally:
        lock_over.set()
        for locker in lockers:
            locker.join(60)
        crowd.pause = 0.3  # enough good requests that the bad ones are few among them
        try:
            print("while it was locked:", crowd.statuses)
            over(stack, before, "FewDatabaseConnections", "SlowRequests", "HighErrorRate", seconds=480)
        finally:
            crowd.stop()
            print("in all:", crowd.statuses)


def upload_many(person, project, pictures):
    def one(n):
        answer = person.upload(project, pictures[n], f"i{n}.png")
        assert answer.status == 201, answer
        return answer.json
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(len(pictures))))


def test_jobs_that_wait(stack):
    before = len(stack.told.seen)
    person = stack.client()
    person.register()
    stack.sql(f"UPDATE users SET role = 'admin' WHERE email = '{person.email}'")
    answer = person.post("/api/auth/login", {"email": person.email, "password": person.password})
    person.token = answer.json["accessToken"]
    project = person.project()
    pictures = [images.png(images.nuclei(width=64, height=64, count=2, seed=n)[0]) for n in range(110)]
    uploaded = upload_many(person, project, pictures)
    answer = person.post("/api/models/classical_nuclei/pause")
    assert answer.status == 200, answer
    try:
        for image in uploaded:
            person.segment(image, model="classical_nuclei")
        with fires(stack, "QueueDeep", "OldestJobWaits"):
            stack.sql("UPDATE jobs SET run_after = run_after - interval '16 minutes' WHERE id = (SELECT min(id::text)::uuid FROM jobs "
                      "WHERE state = 'queued')")
    finally:
        assert person.post("/api/models/classical_nuclei/resume").status == 200
    containers.settled(stack, 200)
    over(stack, before, "QueueDeep", "OldestJobWaits")


def test_a_model_that_fails(stack):
    before = len(stack.told.seen)
    person = stack.client()
    person.register()
    project = person.project()
    good = [images.png(images.nuclei(width=128, height=128, count=4, seed=n)[0]) for n in range(20)]
    bad = [images.png(bright_picture(n)) for n in range(20)]
    good, bad = upload_many(person, project, good), upload_many(person, project, bad)
    end = threading.Event()

    def feed(good_share):
        n = 0
        while not end.wait(0.5):
            n += 1
            person.segment(good[n % 20] if n % 10 < good_share else bad[n % 20], model="fragile")
    # Each bad one runs three times. Two of ten: six of fourteen runs end badly, which fails jobs and opens no breaker.
    for share, alert in ((8, "JobsFail"), (0, "BreakerOpen")):
        end.clear()
        feeder = threading.Thread(target=feed, args=(share,), daemon=True)
        try:
            with fires(stack, alert, seconds=400):
                feeder.start()
        finally:
            end.set()
            feeder.join(30)
    for job, in stack.sql("SELECT id FROM jobs WHERE state IN ('queued', 'delayed') AND model = 'fragile'"):
        assert person.delete(f"/api/segmentation/job/{job}").status in (202, 409)
    well = Feeder(person, good)
    try:
        over(stack, before, "BreakerOpen", "JobsFail", seconds=700)
    finally:
        well.end.set()
        well.join(30)


class Feeder(threading.Thread):
    """Runs the model on images that it can do, until told to stop."""

    def __init__(self, person, uploaded):
        super().__init__(daemon=True)
        self.person, self.images, self.end = person, uploaded, threading.Event()
        self.start()

    def run(self):
        while not self.end.wait(0.1):
            for image in self.images:
                self.person.segment(image, model="fragile")


def test_time_runs_out(stack):
    """A certificate with ten days left, a backup of yesterday's yesterday, and a disk that is full."""
    before, alerts = len(stack.told.seen), ["CertificateExpiresSoon", "BackupTooOld"]
    if stack.disk:
        alerts.append("DiskAlmostFull")
    else:
        print("no file system can be mounted here: DiskAlmostFull is not tried")
    metrics = "/var/lib/postgresql/data/metrics/spheroseg.prom"
    try:
        with fires(stack, *alerts):
            stack.in_secrets(
                "cd /secrets; cp -p nginx/public.crt nginx/public.crt.was; "
                "openssl req -new -key nginx/public.key -subj /CN=localhost -out /tmp/short.csr; "
                "printf 'subjectAltName=DNS:localhost,DNS:nginx' >/tmp/ext; openssl x509 -req -in /tmp/short.csr -CA made/ca.crt "
                "-CAkey made/ca.key -set_serial 77 -days 10 -extfile /tmp/ext -out /tmp/short.crt; "
                "cat /tmp/short.crt made/ca.crt >nginx/public.crt")
            containers.run("docker", "kill", "-s", "HUP", stack.ids("nginx")[0])
            stack.inside("backup", "sed", "-i", r"s/^\(spheroseg_backup_success_timestamp_seconds\) .*/\1 " + str(int(time.time()) - 27 * 3600) + "/",
                         metrics)
            if stack.disk:
                room = os.statvfs(stack.disk)
                (stack.disk / "full").write_bytes(bytes(int(room.f_bavail * room.f_frsize * 0.95)))
    finally:
        stack.in_secrets("cd /secrets/nginx; cp -p public.crt.was public.crt; rm public.crt.was")
        containers.run("docker", "kill", "-s", "HUP", stack.ids("nginx")[0])
        if stack.disk:
            (stack.disk / "full").unlink(missing_ok=True)
    stack.inside("backup", "/opt/spheroseg/scripts/backup.sh", "--no-base")
    over(stack, before, *alerts)


def test_every_alert_was_seen(stack):
    for alert in RULES:
        print(f"{alert:<24} told {seen_firing.get(alert, -1):5.0f} s after its cause, over {seen_over.get(alert, -1):5.0f} s after it")
    untried = {"DiskAlmostFull"} if not stack.disk else set()
    assert set(seen_firing) == set(seen_over) == set(RULES) - untried
