"""The system in containers with the images of people in a bucket (docker-compose.s3.yml): what is uploaded through nginx is
segmented by a worker that shares no volume with the gateway but for files on their way, and a backup knows that."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import containers  # noqa: E402
import images  # noqa: E402
from test_storage_s3 import BUCKET, KEY, SECRET, Gate, fixture_gate  # noqa: E402, F401  a local S3 server

pytestmark = pytest.mark.skipif(not containers.engine(), reason="no Docker engine runs here")


@pytest.fixture(scope="module", name="stack")
def fixture_stack(gate):
    near = Gate(gate.upstream, containers.bridge_address())
    s = containers.Containers("spheroseg-ops-s3", ("docker-compose.yml", "docker-compose.s3.yml"), BACKUP_IMAGE="spheroseg/backup:test",
                              STORAGE_URL=f"s3://{BUCKET}/people", S3_ENDPOINT=f"http://{near.server_address[0]}:{near.server_port}")
    s.gate = near
    secrets = s.secrets_from_host()
    (secrets / "s3_access_key").write_text(KEY + "\n")
    (secrets / "s3_secret_key").write_text(SECRET + "\n")
    try:
        yield s.up()
    finally:
        s.down()
        near.shutdown()
        near.server_close()


def test_images_are_in_the_bucket_alone(stack):
    person = stack.client().register()
    picture = images.png(images.nuclei(width=256, height=256, count=12, seed=3)[0])
    image = person.upload(person.project(), picture).json
    job = person.wait_job(person.segment(image, model="nuclei")["jobId"], seconds=120)
    assert job["state"] == "completed", job
    assert person.get(f"/api/images/{image['id']}/original").body == picture
    assert [path for method, path, *_ in stack.gate.seen if method == "PUT" and image["id"] in path]
    left = containers.run("docker", "exec", stack.ids("gateway")[0], "find", "/var/lib/spheroseg/storage", "-type", "f").stdout
    assert left.strip() == "", left


def test_a_backup_leaves_them_there(stack):
    """The bucket's versions are their backup; the database's dump is made and can be restored."""
    done = stack.script("backup.sh", "--no-base")
    assert " 0 images" in done.stderr and "is not in the storage" not in done.stderr, done.stderr
    assert " images=0 lost_images=0 " in stack.script("restore-drill.sh").stdout


def test_a_wrong_key_is_a_storage_that_is_down(stack):
    """Uploads are refused in words, and nothing else changes; the heartbeat of a system with monitoring would fail."""
    person = stack.client().register()
    project = person.project()
    (stack.dir / "secrets/s3_secret_key").write_text("wrong\n")
    stack.compose("run", "--rm", "secrets")
    gateway = stack.ids("gateway")[0]
    containers.run("docker", "restart", "-t", "5", gateway)
    containers.wait_until(lambda: person.get("/api/health").json["status"] == "down", 120, "health that says so")
    answer = person.upload(project, images.png(images.nuclei()[0]))
    assert answer.status >= 500 and answer.code == "storage_denied", answer
    assert person.get("/api/projects").status == 200
    (stack.dir / "secrets/s3_secret_key").write_text(SECRET + "\n")
    stack.compose("run", "--rm", "secrets")
    containers.run("docker", "restart", "-t", "5", gateway)
    containers.wait_until(lambda: person.get("/api/health").json["status"] != "down", 120, "health again")
    assert person.upload(project, images.png(images.nuclei()[0])).status == 201
