"""Blue-green deployment under load: no request fails, a broken version is taken back, a killed script leaves a serving
system at each of its steps, and the quick way back is quick."""
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import containers  # noqa: E402
import images  # noqa: E402
from test_compose import Visitor  # noqa: E402

pytestmark = pytest.mark.skipif(not containers.engine(), reason="no Docker engine runs here")
STEPS = ["checks", "backup", "migrate", "start", "health", "verify", "switch", "watch", "drain"]


class Deployed(containers.Containers):
    def __init__(self):
        folder = pathlib.Path(os.path.realpath(containers.tempfile.mkdtemp(prefix="spheroseg-deploy-")))
        folder.chmod(0o755)
        super().__init__("spheroseg-ops-deploy", DEPLOY_DIR=folder, ACTIVE_DIR=folder / "active", DEPLOY_GATEWAYS="1",
                         DEPLOY_WORKERS="1", DEPLOY_WATCH="5", DEPLOY_HEALTHY="120")
        self.deploy_dir = folder
        (folder / "active").mkdir(mode=0o755)
        (folder / "active/gateway.conf").write_text("set $gateway gateway;\n")

    def state(self, name):
        try:
            return dict(line.split("=", 1) for line in (self.deploy_dir / "state").read_text().splitlines())[name]
        except (OSError, KeyError):
            return None

    def active(self):
        return (self.deploy_dir / "active/gateway.conf").read_text().split()[-1].rstrip(";")

    def down(self):
        for colour in ("blue", "green"):
            found = containers.run("docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}-{colour}").stdout.split()
            if found:
                containers.run("docker", "rm", "-f", *found)
        super().down()


@pytest.fixture(scope="module", name="stack")
def fixture_stack():
    s = Deployed()
    try:
        yield s.up()
    finally:
        s.down()


@pytest.fixture(name="visitor")
def fixture_visitor(stack):
    person = stack.client()
    person.register()
    v = Visitor(person)
    yield v
    v.end()


def serves(stack):
    """A person gets an image segmented."""
    person = stack.client()
    person.register()
    project = person.post("/api/projects", {"title": "Check"}).json["id"]
    picture = images.png(images.nuclei(width=256, height=256, count=12, seed=7)[0])
    image = person.call("POST", f"/api/projects/{project}/images?name=i.png", body=picture,
                        headers={"Content-Type": "application/octet-stream"}).json["id"]
    job = person.post(f"/api/images/{image}/segmentation", {"model": "nuclei"}).json["jobId"]
    containers.wait_until(lambda: person.get(f"/api/segmentation/job/{job}").json["state"] == "completed", 60, "a segmentation")
    return True


def settle(visitor, what):
    containers.wait_until(lambda: visitor.sent > 50, 60, "fifty requests")  # a step may be over sooner
    print(f"{what}: {visitor.end()}")
    assert visitor.sent > 50 and visitor.failed == 0, visitor.said[:5]
    assert visitor.heard > 0 and visitor.deaf < 30


def test_first_and_second_deployment_under_load(stack, visitor):
    for colour, options in (("blue", []), ("green", ["--skip-backup"])):  # the first with its backup
        done = stack.script("deploy-production.sh", "test", *options)
        assert stack.active() == f"gateway-{colour}" and stack.state("step") == "finished", done.stdout
    settle(visitor, "two deployments")
    assert serves(stack)
    kept = stack.script("backup.sh", "--list").stdout
    print(kept)
    assert len(kept.splitlines()) >= 1 and stack.state("result") == "deployed"


def test_a_backup_that_fails_stops_the_deployment(stack, visitor):
    """Nothing is migrated without a backup: unless told to, it goes no further."""
    nowhere = stack.dir / "not-a-folder"
    nowhere.write_text("")
    done = stack.script("deploy-production.sh", "test", check=False, BACKUP_DIR=str(nowhere))
    assert done.returncode == 1 and "the backup failed" in done.stdout, done.stdout + done.stderr
    assert stack.active() == "gateway-green" and stack.state("result") == "rolled back"
    settle(visitor, "a backup that fails")


def test_dry_run_changes_nothing(stack):
    before = sorted(containers.run("docker", "ps", "-aq").stdout.split())
    stack.script("deploy-production.sh", "test", "--dry-run")
    assert sorted(containers.run("docker", "ps", "-aq").stdout.split()) == before and stack.active() == "gateway-green"


def test_a_missing_version_is_refused_before_anything_happens(stack):
    assert stack.script("deploy-production.sh", "never-built", check=False).returncode == 4
    assert stack.active() == "gateway-green"


@pytest.mark.parametrize("what,dockerfile", [
    ("gateway", 'FROM spheroseg/gateway:test\nENV TLS_DIR=/proc MIGRATIONS_DIR=/nonexistent UI_DIR=/nonexistent\n'),
    ("segworker", 'FROM spheroseg/segworker:test\nUSER root\nRUN rm -rf /usr/local/share/spheroseg/models/*\nUSER 10001\n')])
def test_a_broken_version_is_taken_back(stack, visitor, what, dockerfile):
    for image in ("gateway", "segworker"):
        source = dockerfile if image == what else f"FROM spheroseg/{image}:test\n"
        containers.run("docker", "build", "-q", "-t", f"spheroseg/{image}:broken", "-", input=source, env=dict(os.environ, DOCKER_BUILDKIT="0"))
    done = stack.script("deploy-production.sh", "broken", "--skip-backup", check=False, DEPLOY_HEALTHY="30")
    assert done.returncode == 1, done.stdout
    assert "rolled back" in done.stdout and stack.active() == "gateway-green"
    settle(visitor, f"a broken {what}")
    assert serves(stack)


def test_two_deployments_at_once(stack):
    with open(stack.deploy_dir / "lock", "w", encoding="ascii") as lock:
        import fcntl
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert stack.script("deploy-production.sh", "test", check=False).returncode == 1


@pytest.mark.parametrize("step", STEPS)
def test_killed_in_a_step(stack, visitor, step):
    argv = [containers.ROOT / "scripts/deploy-production.sh", "test", *([] if step == "backup" else ["--skip-backup"])]
    (stack.deploy_dir / "state").write_text("step=finished\nversion=test\n")
    deployment = subprocess.Popen([str(a) for a in argv], env=stack.env, start_new_session=True, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
    end = time.monotonic() + 200
    while stack.state("step") != step and deployment.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    killed = deployment.poll() is None
    os.killpg(deployment.pid, signal.SIGKILL)
    deployment.wait()
    assert killed or step in ("checks", "backup"), "it was over before it could be killed"
    time.sleep(1)
    settle(visitor, f"killed in {step}")
    assert serves(stack)
    done = stack.script("deploy-production.sh", "test", "--skip-backup", check=False)  # the next one cleans up and goes on
    assert done.returncode == 0, done.stdout
    assert serves(stack)


def test_quick_rollback(stack, visitor):
    before = stack.active()
    start = time.monotonic()
    moved = []

    def look():
        while stack.active() == before and time.monotonic() - start < 60:
            time.sleep(0.02)
        moved.append(time.monotonic() - start)
    watcher = threading.Thread(target=look)
    watcher.start()
    stack.script("deploy-production.sh", "--quick-rollback")
    watcher.join()
    print(f"quick rollback: people are back after {moved[0]:.1f} s, all done after {time.monotonic() - start:.1f} s")
    assert moved[0] < 10 and stack.active() != before
    settle(visitor, "quick rollback")
    assert serves(stack)
