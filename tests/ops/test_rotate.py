"""rotate-secrets.sh on a running system: the new secret opens, the old one does not, and people notice nothing or little."""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import containers  # noqa: E402
import images  # noqa: E402
from harness import wait_until  # noqa: E402
from test_ssl import Visitor  # noqa: E402

pytestmark = pytest.mark.skipif(not containers.engine(), reason="no Docker engine runs here")


@pytest.fixture(scope="module", name="stack")
def fixture_stack():
    s = containers.Containers(f"spheroseg-ops-rotate-{os.getpid()}")
    s.secrets = s.secrets_from_host()
    try:
        yield s.up()
    finally:
        s.down()


@pytest.fixture(name="person")
def fixture_person(stack):
    return stack.client().register()


def value(stack, name):
    return (stack.secrets / name).read_text()


def works(person):
    """An image goes the whole way."""
    image = person.upload(person.project(), images.png(images.nuclei(width=128, height=128, count=5)[0])).json
    job = person.wait_job(person.segment(image, model="classical_nuclei")["jobId"], seconds=90)
    assert job["state"] == "completed", job


def opens_database(stack, password):
    return containers.run("docker", "exec", "-e", f"PGPASSWORD={password}", stack.ids("postgres")[0], "psql", "-h", "127.0.0.1", "-U", "spheroseg",
                          "-Atc", "SELECT 1", "spheroseg", check=False).returncode == 0


def opens_redis(stack, user, password):
    out = containers.run("docker", "exec", "-i", stack.ids("redis")[0], "redis-cli", "-h", "127.0.0.1", input=f"AUTH {user} {password}\nPING\n", check=False)
    return "PONG" in out.stdout


def watched(person, action):
    visitor = Visitor(person)
    try:
        action()
    finally:
        visitor.end.set()
        visitor.join()
    print(f"{visitor.sent} requests, {len(visitor.failed)} failed, longest gap {visitor.gap:.2f} s")
    return visitor


def test_postgres(stack, person):
    old = value(stack, "postgres_password")
    visitor = watched(person, lambda: stack.script("rotate-secrets.sh", "postgres"))
    new = value(stack, "postgres_password")
    assert new != old and opens_database(stack, new) and not opens_database(stack, old)
    assert len(visitor.failed) <= visitor.sent * 0.05, visitor.failed[:5]
    works(person)
    assert not (stack.secrets / "postgres_password.old").exists()


def test_redis(stack, person):
    old, admin = value(stack, "redis_password"), value(stack, "redis_admin_password")
    visitor = watched(person, lambda: stack.script("rotate-secrets.sh", "redis"))
    assert opens_redis(stack, "spheroseg", value(stack, "redis_password")) and not opens_redis(stack, "spheroseg", old)
    assert opens_redis(stack, "admin", value(stack, "redis_admin_password")) and not opens_redis(stack, "admin", admin)
    assert not visitor.failed, visitor.failed[:5]
    works(person)


def test_jwt(stack, person):
    assert person.get("/api/projects").status == 200
    stack.script("rotate-secrets.sh", "jwt")
    assert person.get("/api/projects").status == 401
    answer = person.post("/api/auth/refresh", {}, cookies=True, auth=False)
    assert answer.status == 200, answer
    person.token = answer.json["accessToken"]
    works(person)


def test_a_failure_puts_the_old_secret_back(stack, person):
    """The version that new containers should have is not there: nothing changes, and the system serves on."""
    old, database = value(stack, "redis_password"), value(stack, "postgres_password")
    for name in ("redis", "postgres"):
        done = stack.script("rotate-secrets.sh", name, check=False, VERSION="no-such-version", GATEWAY_IMAGE="localhost:1/none")
        assert done.returncode == 1 and "was not replaced" in done.stderr, done.stderr
    assert value(stack, "redis_password") == old and opens_redis(stack, "spheroseg", old)
    assert value(stack, "postgres_password") == database and opens_database(stack, database)
    works(person)


def test_grafana_and_heartbeat_do_not_run_here(stack):
    before = value(stack, "grafana_password")
    done = stack.script("rotate-secrets.sh", "grafana", "heartbeat")
    assert "grafana does not run" in done.stderr and value(stack, "grafana_password") != before


def test_no_secret_is_shown(stack):
    done = stack.script("rotate-secrets.sh", "--dry-run", "jwt", "redis")
    for path in stack.secrets.iterdir():
        assert path.read_text() not in done.stdout + done.stderr
    wait_until(lambda: stack.script("rotate-secrets.sh", "nonsense", check=False).returncode == 2, 5, "wrong usage")
