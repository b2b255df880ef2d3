"""Backup and restore: of a plain installation, whose ways to fail are tried one by one, and of the system in containers,
destroyed and brought back."""
import contextlib
import hashlib
import os
import pathlib
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time

import psycopg2
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import containers  # noqa: E402
import images  # noqa: E402
from containers import ROOT, free_port, run, wait_until  # noqa: E402
from harness import _pg_bin  # noqa: E402
from test_storage_s3 import BUCKET, KEY, SECRET, Gate, fixture_gate  # noqa: E402, F401  a local S3 server, and a gate that checks signatures

ACCOUNT = pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def drop():
    """PostgreSQL runs under no root, and neither do its backups here."""
    if ACCOUNT:
        os.setgroups([])
        os.setgid(ACCOUNT.pw_gid)
        os.setuid(ACCOUNT.pw_uid)


class Plain:
    """A database with the project's tables, a folder with images, and the folder of the backups."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="spheroseg-backup-"))
        self.port, self.service = free_port(), None
        if ACCOUNT:
            os.chown(self.dir, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        self.storage, self.backups = self.dir / "storage", self.dir / "backups"
        self.as_user("mkdir", self.storage)
        (self.dir / "password").write_text("p@ss:w/rd")
        (self.dir / "passphrase").write_text("a passphrase that is long enough")
        (self.dir / "other").write_text("another passphrase, just as long")
        for name in ("password", "passphrase", "other"):
            (self.dir / name).chmod(0o644)
        self.env = dict(os.environ, DATABASE_URL=f"postgresql://spheroseg:p%40ss%3Aw%2Frd@127.0.0.1:{self.port}/spheroseg",
                        STORAGE_DIR=str(self.storage), BACKUP_DIR=str(self.backups), HOME=str(self.dir))
        self.start()

    def as_user(self, *argv, check=True, **env):
        done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=300, check=False, cwd="/",
                              preexec_fn=drop, env=dict(getattr(self, "env", os.environ), **env))
        assert not check or done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        return done

    def script(self, name, *args, **kw):
        return self.as_user(ROOT / "scripts" / name, *args, **kw)

    def start(self):
        self.as_user(_pg_bin() / "initdb", "-D", self.dir / "pg", "-U", "spheroseg", "-E", "UTF8", "--locale=C.UTF-8", "-A", "scram-sha-256",
                     f"--pwfile={self.dir / 'password'}", "--no-sync", "--data-checksums")
        self.as_user(_pg_bin() / "pg_ctl", "-D", self.dir / "pg", "-l", self.dir / "pg.log", "-w", "-o",
                     f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_slot_wal_keep_size=1GB", "start")
        self.sql("CREATE DATABASE spheroseg", database="postgres")
        for file in sorted((ROOT / "proto/sql").glob("*.up.sql")):
            self.sql(file.read_text())
        self.user = self.sql("INSERT INTO users (email, password_hash) VALUES ('a@example.org', 'x') RETURNING id")[0][0]
        self.project = self.sql("INSERT INTO projects (owner_id, title) VALUES (%s, 'Plate') RETURNING id", self.user)[0][0]

    def stop_server(self):
        self.as_user(_pg_bin() / "pg_ctl", "-D", self.dir / "pg", "-m", "immediate", "stop", check=False)

    def sql(self, text, *params, database="spheroseg"):
        with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=self.port, user="spheroseg", password="p@ss:w/rd", dbname=database)) as db:
            db.autocommit = True
            with db.cursor() as cursor:
                cursor.execute(text, params or None)
                return cursor.fetchall() if cursor.description else None

    def add_image(self, data):
        image = self.sql("INSERT INTO images (project_id, name, format, byte_size, sha256, storage_key, width, height, bit_depth, channels) "
                         "VALUES (%s, 'i.png', 'png', %s, %s, 'new', 8, 8, 8, 1) RETURNING id",
                         self.project, len(data), hashlib.sha256(data).digest())[0][0]
        key = f"images/{image}/original"
        self.as_user("mkdir", "-p", self.storage / f"images/{image}/tiles/0")
        for path, content in ((key, data), (f"images/{image}/tiles/0/0_0.jpg", b"tile"), (f"images/{image}/thumbnail.jpg", b"thumb")):
            (self.storage / path).write_bytes(content)
            if ACCOUNT:
                os.chown(self.storage / path, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        self.sql("UPDATE images SET storage_key = %s WHERE id = %s", key, image)
        return key

    def state(self):
        rows = self.sql("SELECT storage_key, encode(sha256, 'hex') FROM images ORDER BY 1")
        return self.sql("SELECT email FROM users ORDER BY 1"), rows

    def files_are_right(self):
        for key, sha in self.sql("SELECT storage_key, encode(sha256, 'hex') FROM images"):
            assert hashlib.sha256((self.storage / key).read_bytes()).hexdigest() == sha
        return True

    def names(self):
        return [line.split()[0] for line in self.script("backup.sh", "--list").stdout.splitlines()]

    def serve(self, **env):
        self.service = subprocess.Popen([str(ROOT / "scripts/backup.sh"), "--serve"], preexec_fn=drop, cwd="/", stdout=subprocess.DEVNULL,
                                        stderr=open(self.dir / "service.log", "ab"), env=dict(self.env, BACKUP_TICK="1", **env))

    def stop_service(self):
        if self.service:
            self.service.terminate()
            assert self.service.wait(30) == 0
            self.service = None

    def end(self):
        if self.service:
            self.service.kill()
            self.service.wait()
        self.stop_server()
        shutil.rmtree(self.dir, ignore_errors=True)


@pytest.fixture(name="plain")
def fixture_plain():
    p = Plain()
    try:
        yield p
    finally:
        p.end()


def test_lost_and_brought_back(plain):
    for n in range(20):
        plain.add_image(os.urandom(2000 + n))
    twice = plain.add_image(b"the same bytes"), plain.add_image(b"the same bytes")
    before = plain.state()
    print(plain.script("backup.sh").stderr)
    objects = [p for p in (plain.backups / "objects").rglob("*") if p.is_file()]
    assert len(objects) == 21  # each once; no tiles, no thumbnails
    plain.sql("DELETE FROM users")
    plain.as_user("rm", "-rf", plain.storage / "images")
    done = plain.script("restore.sh", "latest", "--yes")
    assert plain.state() == before and plain.files_are_right() and (plain.storage / twice[1]).exists(), done.stderr
    old = plain.sql("SELECT datname FROM pg_database WHERE datname LIKE 'spheroseg%before%'")
    assert len(old) == 1 and plain.sql("SELECT count(*) FROM users", database=old[0][0]) == [(0,)]


def test_drill_compares_and_leaves_nothing(plain):
    plain.add_image(os.urandom(3000))
    plain.script("backup.sh")
    line = plain.script("restore-drill.sh", "--point-in-time").stdout
    assert " images=1 lost_images=0 " in line and "tables=" in line, line
    assert re.search(r" point_in_time_seconds=\d+ newest_change_seconds=-?\d+$", line.strip()), line
    assert plain.sql("SELECT count(*) FROM pg_database WHERE datname ~ 'drill|scratch'") == [(0,)]
    assert len(plain.names()) == 1 and not list(plain.backups.glob(".work*"))
    assert line in (plain.backups / "drills.log").read_text()


def test_scratch(plain):
    plain.add_image(os.urandom(3000))
    before = plain.state()
    plain.script("backup.sh", "--no-base")
    plain.sql("DELETE FROM users")
    said = plain.script("restore.sh", "latest", "--into-scratch").stderr
    database = plain.sql("SELECT datname FROM pg_database WHERE datname LIKE 'spheroseg_scratch%'")[0][0]
    assert database in said and plain.sql("SELECT count(*) FROM users", database=database) == [(1,)]
    assert plain.sql("SELECT count(*) FROM users") == [(0,)] and before != plain.state()
    folder = said.split("folder ")[1].split(":")[0]
    assert len([p for p in pathlib.Path(folder).rglob("original")]) == 1


def test_point_in_time_between_two_writes(plain):
    plain.serve(BACKUP_IMAGES_EVERY="1")
    wait_until(plain.names, 60, "the first backup")
    first = plain.add_image(b"first" * 100)
    time.sleep(1.2)
    between = plain.sql("SELECT now()::text")[0][0]
    time.sleep(1.2)
    second = plain.add_image(b"second" * 100)
    wait_until(lambda: second in (plain.backups / "index.tsv").read_text(), 60, "the second image in the backups")
    plain.stop_service()
    plain.as_user("rm", "-rf", plain.storage / "images")
    plain.sql("DELETE FROM users")
    base = [n for n in plain.names() if "-at-" not in n][-1]
    print(plain.script("restore.sh", base, "--at", between, "--yes").stderr)
    assert {key for key, _ in plain.state()[1]} == {first} and plain.files_are_right()
    done = plain.script("restore.sh", base, "--at", "2100-01-01 00:00:00+00", "--yes", check=False)
    assert done.returncode == 1 and "target" in done.stderr and {key for key, _ in plain.state()[1]} == {first}


def test_nothing_is_lost_when_the_server_dies(plain):
    """What was committed a moment before the server was destroyed comes back, images included."""
    plain.serve(BACKUP_IMAGES_EVERY="1")
    wait_until(plain.names, 60, "the first backup")
    wait_until(lambda: plain.sql("SELECT count(*) FROM pg_stat_replication")[0][0] == 1, 30, "the receiver")
    key = plain.add_image(b"late" * 100)
    wait_until(lambda: key in (plain.backups / "index.tsv").read_text(), 60, "its copy")
    for n in range(50):
        plain.sql("INSERT INTO users (email, password_hash) VALUES (%s, 'x')", f"u{n}@example.org")
    before = plain.state()
    plain.stop_server()
    plain.service.kill()
    plain.service.wait()
    plain.service = None
    plain.as_user("rm", "-rf", plain.dir / "pg", plain.storage / "images")
    base = sorted(p.name for p in (plain.backups / "backups").iterdir())[-1]
    plain.start()
    start = time.monotonic()
    plain.script("restore.sh", base, "--at", "latest", "--yes")
    print(f"destroyed server back after {time.monotonic() - start:.1f} s")
    assert plain.state() == before and plain.files_are_right()


def test_damage_is_noticed(plain):
    key = plain.add_image(b"precious" * 500)
    plain.script("backup.sh")
    obj = next(p for p in (plain.backups / "objects").rglob("*") if p.is_file())
    good = obj.read_bytes()
    obj.chmod(0o600)
    obj.write_bytes(good[:-1] + b"?")
    done = plain.script("restore-drill.sh", check=False)
    assert done.returncode == 1 and key in done.stderr and "lost_images=1" in done.stdout
    plain.as_user("rm", "-rf", plain.storage / "images")
    assert plain.script("restore.sh", "latest", "--yes", check=False).returncode == 3
    obj.write_bytes(good)
    plain.script("restore-drill.sh")
    dump = plain.backups / "backups" / plain.names()[0] / "database.dump"
    whole = dump.read_bytes()
    dump.chmod(0o600)
    dump.write_bytes(whole[:100] + b"??" + whole[102:])
    done = plain.script("restore-drill.sh", check=False)
    assert done.returncode == 1 and "damaged" in done.stderr and "database.dump" in done.stderr


def test_encrypted(plain):
    plain.add_image(b"nobody may read this" * 50)
    before = plain.state()
    mine, other = {"BACKUP_PASSPHRASE_FILE": str(plain.dir / "passphrase")}, {"BACKUP_PASSPHRASE_FILE": str(plain.dir / "other")}
    plain.script("backup.sh", **mine)
    for path in plain.backups.rglob("*"):
        if path.is_file():
            assert b"nobody may read" not in path.read_bytes() and b"a@example.org" not in path.read_bytes(), path
    plain.sql("DELETE FROM users")
    plain.as_user("rm", "-rf", plain.storage / "images")
    for wrong in (other, {}):
        done = plain.script("restore.sh", "latest", "--yes", check=False, **wrong)
        assert done.returncode == 1 and "passphrase" in done.stderr.lower(), done.stderr
        assert plain.state()[0] == []
        assert plain.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'spheroseg_%'") == [(0,)]
    plain.script("restore.sh", "latest", "--yes", **mine)
    assert plain.state() == before and plain.files_are_right()
    assert " lost_images=0 " in plain.script("restore-drill.sh", "--point-in-time", **mine).stdout


def test_pruning(plain):
    keep, gone = plain.add_image(b"stays" * 99), plain.add_image(b"goes" * 99)
    plain.script("backup.sh")
    old = plain.names()[0]
    (plain.backups / "backups" / old).rename(plain.backups / "backups" / "20200101T020000Z")
    plain.sql("DELETE FROM images WHERE storage_key = %s", gone)
    plain.as_user("rm", plain.storage / gone)
    time.sleep(1.1)
    plain.script("backup.sh", "--keep", "40000")
    assert len(plain.names()) == 2
    assert not (plain.backups / "backups/20200101T020000Z/base").exists()  # bases go earlier, and the rest stays whole
    plain.script("restore-drill.sh", "20200101T020000Z")
    for path in (plain.backups / "objects").rglob("*"):
        os.utime(path, (0, 0))
    time.sleep(1.1)
    plain.script("backup.sh", "--keep", "30")
    left = {p.name for p in (plain.backups / "objects").rglob("*") if p.is_file()}
    assert left == {hashlib.sha256(b"stays" * 99).hexdigest()} and keep
    assert len(plain.names()) == 2 and " lost_images=0 " in plain.script("restore-drill.sh").stdout


def test_failures_are_told_and_leave_nothing(plain):
    plain.add_image(os.urandom(3 << 20))
    done = plain.script("backup.sh", "--to", "/proc/nowhere", check=False)
    assert done.returncode == 1 and "cannot write" in done.stderr
    if ACCOUNT:
        small = plain.dir / "small"
        small.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size=2m,uid={ACCOUNT.pw_uid}", "tmpfs", small)
        try:
            done = plain.script("backup.sh", "--to", small, check=False)
            assert done.returncode == 1 and "error:" in done.stderr and ("space" in done.stderr or "full" in done.stderr), done.stderr
            assert not list((small / "backups").iterdir()) and not list(small.glob(".work*")) and not list((small / "metrics").iterdir())
        finally:
            run("umount", small)
    done = plain.script("backup.sh", DATABASE_URL=f"postgresql://spheroseg:wrong@127.0.0.1:{plain.port}/spheroseg", check=False)
    assert done.returncode == 1 and "password authentication failed" in done.stderr
    done = plain.script("backup.sh", DATABASE_URL="postgresql://spheroseg:x@127.0.0.1:1/spheroseg", check=False)
    assert done.returncode == 1 and "does not answer" in done.stderr
    assert plain.names() == []
    done = plain.script("restore.sh", "never-made", "--yes", check=False)
    assert done.returncode == 1 and "there is no backup" in done.stderr
    plain.sql("CREATE ROLE owner LOGIN PASSWORD 'owner'; GRANT pg_read_all_data TO owner")
    done = plain.script("backup.sh", DATABASE_URL=f"postgresql://owner:owner@127.0.0.1:{plain.port}/spheroseg")
    assert "may not replicate" in done.stderr and len(plain.names()) == 1


# ---- a copy in a bucket ----

def bucket(gate, place, **more):
    return {"BACKUP_URL": f"s3://{BUCKET}/{place}", "S3_ENDPOINT": f"http://127.0.0.1:{gate.server_port}", "S3_ACCESS_KEY": KEY,
            "S3_SECRET_KEY": SECRET, "BACKUP_PART_MIB": "5", **more}


def test_the_folder_is_lost_and_the_bucket_has_it(plain, gate):
    gate.faults.clear()
    for n in range(5):
        plain.add_image(os.urandom(2000 + n))
    large = plain.add_image(os.urandom((11 << 20) + 5))
    before, env = plain.state(), bucket(gate, "lost/one")
    gate.faults += [("PUT", 503), ("PUT", "cut"), ("POST", 500), ("GET", 500)]  # it is tried again
    gate.seen.clear()
    said = plain.script("backup.sh", **env).stderr
    print(said)
    assert "sent to s3://" in said and gate.faults == []
    assert sorted(n for method, _, query, _, n in gate.seen if method == "PUT" and "partNumber" in query)[:1] == [(1 << 20) + 5]
    gate.seen.clear()
    time.sleep(1.1)
    plain.script("backup.sh", "--no-base", **env)
    assert not [path for method, path, *_ in gate.seen if method == "PUT" and "/objects/" in path], "what is there is not sent again"
    plain.as_user("rm", "-rf", plain.backups, plain.storage / "images")
    plain.sql("DELETE FROM users")
    gate.faults += [("GET", "short"), ("GET", "cut")]
    print(plain.script("backup.sh", "--fetch", **env).stderr)
    assert len(plain.names()) == 2
    plain.script("restore.sh", "latest", "--yes")
    assert plain.state() == before and plain.files_are_right() and (plain.storage / large).exists()
    assert " lost_images=0 " in plain.script("restore-drill.sh", plain.names()[0], "--point-in-time").stdout


def test_what_is_written_all_the_time_reaches_the_bucket(plain, gate):
    gate.faults.clear()
    env = bucket(gate, "serve")
    plain.serve(BACKUP_IMAGES_EVERY="1", **env)
    wait_until(plain.names, 60, "the first backup")
    plain.add_image(b"late" * 100)
    for n in range(20):
        plain.sql("INSERT INTO users (email, password_hash) VALUES (%s, 'x')", f"u{n}@example.org")
    before, gate.seen[:] = plain.state(), []

    def arrived():
        partial = [path for method, path, *_ in gate.seen if method == "PUT" and path.endswith(".partial")]
        return len(partial) >= 2 and [path for method, path, *_ in gate.seen if method == "PUT" and "/objects/" in path]
    wait_until(arrived, 60, "the image and what PostgreSQL wrote in the bucket")
    plain.stop_service()
    plain.as_user("rm", "-rf", plain.backups, plain.storage / "images")
    plain.sql("DELETE FROM users")
    plain.script("backup.sh", "--fetch", **env)
    base = plain.names()[0]
    plain.script("restore.sh", base, "--at", "latest", "--yes")
    assert plain.state() == before and plain.files_are_right()


def test_a_bucket_forgets_what_the_folder_forgets_and_nothing_else(plain, gate):
    gate.faults.clear()
    keep, gone, env = plain.add_image(b"stays" * 99), plain.add_image(b"goes" * 99), bucket(gate, "prune")
    plain.script("backup.sh", **env)
    old = plain.names()[0]
    sums = [hashlib.sha256(text * 99).hexdigest() for text in (b"stays", b"goes")]
    plain.sql("DELETE FROM images WHERE storage_key = %s", gone)
    plain.as_user("rm", plain.storage / gone)
    (plain.backups / "backups" / old).rename(plain.backups / "backups" / "20200101T020000Z")
    for path in (plain.backups / "objects").rglob("*"):
        os.utime(path, (0, 0))
    time.sleep(1.1)
    gate.seen.clear()
    plain.script("backup.sh", "--keep", "30", **env)
    deleted = [path for method, path, *_ in gate.seen if method == "DELETE"]
    assert any(path.endswith(sums[1]) for path in deleted) and not any(path.endswith(sums[0]) for path in deleted), deleted
    assert keep
    # A folder that is empty, by accident or on a new computer, empties no bucket.
    plain.as_user("rm", "-rf", plain.backups)
    time.sleep(1.1)
    gate.seen.clear()
    plain.script("backup.sh", **env)
    assert not [path for method, path, *_ in gate.seen if method == "DELETE" and "partial" not in path]
    plain.as_user("rm", "-rf", plain.backups)
    plain.script("backup.sh", "--fetch", **env)
    assert old in plain.names() and len(plain.names()) == 3


def test_a_bucket_that_refuses_is_told(plain, gate):
    gate.faults.clear()
    plain.add_image(os.urandom(2000))
    done = plain.script("backup.sh", "--no-base", check=False, **bucket(gate, "refused", S3_SECRET_KEY="wrong"))
    assert done.returncode == 1 and "not in the bucket" in done.stderr and "SignatureDoesNotMatch" in done.stderr, done.stderr
    assert len(plain.names()) == 1 and not (plain.backups / "metrics/spheroseg.prom").exists()  # so BackupTooOld is heard
    time.sleep(1.1)
    gate.faults += [("PUT", "damage")]
    done = plain.script("backup.sh", "--no-base", check=False, **bucket(gate, "refused"))
    assert done.returncode == 1 and "400" in done.stderr, done.stderr
    done = plain.script("backup.sh", "--fetch", check=False, **bucket(gate, "empty"))
    assert done.returncode == 1 and "there is no backup" in done.stderr
    for wrong in ({"BACKUP_URL": "http://x"}, {"S3_ENDPOINT": "ftp://x"}, {"S3_ACCESS_KEY": ""}):
        assert plain.script("backup.sh", "--no-base", check=False, **bucket(gate, "refused", **wrong)).returncode == 1


class System(containers.Containers):
    def volume(self, name):
        return f"{self.project}_{name}"

    def in_backup(self, *argv):
        return run("docker", "exec", self.ids("backup")[0], *argv).stdout


@pytest.fixture(scope="module", name="system")
def fixture_system(gate):
    if not containers.engine():
        pytest.skip("no Docker engine runs here")
    near = Gate(gate.upstream, containers.bridge_address())
    s = System("spheroseg-ops-backup", ("docker-compose.yml", "docker-compose.s3.yml"), BACKUP_IMAGES_EVERY="2", BACKUP_ENCRYPT="true",
               BACKUP_IMAGE="spheroseg/backup:test", BACKUP_URL=f"s3://{BUCKET}/containers",
               S3_ENDPOINT=f"http://{near.server_address[0]}:{near.server_port}")
    secrets = s.secrets_from_host()
    (secrets / "s3_access_key").write_text(KEY + "\n")
    (secrets / "s3_secret_key").write_text(SECRET + "\n")
    try:
        yield s.up()
    finally:
        s.down()
        near.shutdown()
        near.server_close()


def test_containers_destroyed_and_brought_back(system):
    person = system.client()
    person.register()
    project = person.post("/api/projects", {"title": "Plate"}).json["id"]
    pictures = {}
    for n in range(4):
        picture = images.png(images.nuclei(width=256, height=256, count=12, seed=n)[0])
        answer = person.call("POST", f"/api/projects/{project}/images?name=i{n}.png", body=picture, headers={"Content-Type": "application/octet-stream"})
        pictures[answer.json["id"]] = picture
        assert person.post(f"/api/images/{answer.json['id']}/segmentation", {"model": "nuclei"}).status == 202
    containers.settled(system, 120)

    wait_until(lambda: system.health(system.ids("backup")[0]) == "healthy", 120, "the backup service's health")
    form = "{{.HostConfig.ReadonlyRootfs}} {{.Config.User}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}"
    assert run("docker", "inspect", "-f", form, system.ids("backup")[0]).stdout.strip() == "true 999:10001 [ALL] [no-new-privileges:true]"
    start = time.monotonic()
    said = system.script("backup.sh").stderr
    print(said, f"{time.monotonic() - start:.1f} s")
    assert "4 images" in said
    metrics = system.in_backup("cat", "/var/lib/postgresql/data/metrics/spheroseg.prom")
    for name in ("success_timestamp_seconds", "duration_seconds", "bytes"):
        assert f"\nspheroseg_backup_{name}" in metrics
    assert "database.dump.gpg" in system.in_backup("find", "/var/lib/postgresql/data/backups")
    drill = system.script("restore-drill.sh", "--point-in-time").stdout
    print(drill)
    assert " images=4 lost_images=0 " in drill and " point_in_time_seconds=-" not in drill

    assert "sent to s3://" in said  # and another computer needs nothing but the bucket, the key and the passphrase
    elsewhere = system.dir / "elsewhere"
    elsewhere.mkdir()
    os.chown(elsewhere, 999, 10001)
    print(system.script("backup.sh", "--fetch", "--to", elsewhere).stderr)
    drill = system.script("restore-drill.sh", "--from", elsewhere).stdout
    print(drill)
    assert " images=4 lost_images=0 " in drill

    base = [line.split()[0] for line in system.script("backup.sh", "--list").stdout.splitlines()][-1]
    late = images.png(images.nuclei(width=256, height=256, count=12, seed=99)[0])
    answer = person.call("POST", f"/api/projects/{project}/images?name=late.png", body=late, headers={"Content-Type": "application/octet-stream"})
    pictures[answer.json["id"]] = late
    wait_until(lambda: answer.json["id"] in system.in_backup("cat", "/var/lib/postgresql/data/index.tsv"), 60, "the late image in the backups")
    before = system.sql("SELECT id, object_count FROM segmentations ORDER BY 1")
    assert len(before) == 4
    system.compose("kill")
    system.compose("rm", "-fv")
    run("docker", "volume", "rm", *(system.volume(name) for name in ("database", "storage", "queue")))

    start = time.monotonic()
    system.up()
    assert system.sql("SELECT count(*) FROM users") == [("0",)]
    up = time.monotonic() - start
    done = system.script("restore.sh", base, "--at", "latest", "--yes")
    wait_until(lambda: system.health(system.ids("gateway")[0]) == "healthy", 60, "the gateway's health")
    print(f"everything destroyed: new containers after {up:.1f} s, restored after {time.monotonic() - start:.1f} s\n{done.stderr}")
    assert system.sql("SELECT id, object_count FROM segmentations ORDER BY 1") == before
    again = system.client()
    again.token = again.post("/api/auth/login", {"email": person.email, "password": person.password}).json["accessToken"]
    for image, picture in pictures.items():
        assert again.get(f"/api/images/{image}/original").body == picture
    fresh = again.call("POST", f"/api/projects/{project}/images?name=fresh.png", body=late, headers={"Content-Type": "application/octet-stream"})
    job = again.post(f"/api/images/{fresh.json['id']}/segmentation", {"model": "nuclei"}).json["jobId"]
    wait_until(lambda: again.get(f"/api/segmentation/job/{job}").json["state"] == "completed", 90, "a segmentation afterwards")
