"""Things that break: workers killed in the middle, Redis or PostgreSQL away, restarts. Nothing is lost or doubled."""
import contextlib
import shutil
import signal
import subprocess
import threading
import time

import images
import pytest
from api import Client
from harness import BUILD, ROOT, wait_until

BIG = images.png(images.nuclei(width=1600, height=1600, count=300, seed=4)[0])   # seconds of work
SMALL = images.png(images.nuclei()[0])


def results_of(stack, image):
    return stack.sql("SELECT id FROM segmentations WHERE image_id = %s", image["id"])


def active_job(stack, job_id, attempt=1):
    """Waits until a worker runs that attempt of the job; returns the worker."""
    def check():
        rows = stack.sql("SELECT worker_id FROM jobs WHERE id = %s AND state = 'active' AND attempt = %s", job_id, attempt)
        return rows[0][0] if rows else None
    return wait_until(check, 30, "the claim")


def assert_clean(stack):
    """No job unfinished, no orphan in PostgreSQL, nothing left in Redis's lists."""
    assert stack.sql("SELECT count(*) FROM jobs WHERE state IN ('queued','active','delayed')") == [(0,)]
    assert stack.sql("SELECT count(*) FROM segmentations s LEFT JOIN jobs j ON j.id = s.job_id AND j.state = 'completed' "
                     "WHERE j.id IS NULL") == [(0,)]

    def empty():
        kinds = {k: stack.redis_cli("TYPE", k) for k in stack.redis_cli("KEYS", "sg:*").split()}
        return not [k for k, t in kinds.items() if t == "list" and not k.startswith("sg:wake")] and not {"sg:lease", "sg:held"} & set(kinds)
    wait_until(empty, 10, "Redis being clean")


def test_kill_nine_in_the_middle(own_stack):
    """SIGKILL a worker while it runs a job: another one completes it, with one set of polygons."""
    s = own_stack(workers=1)
    c = Client(s).register()
    image = c.upload(c.project(), BIG).json
    job_id = c.segment(image)["jobId"]
    first = active_job(s, job_id)
    time.sleep(0.5)
    s.workers[0].kill(signal.SIGKILL)
    killed = time.monotonic()
    s.workers[0].popen.wait()
    assert c.get(f"/api/segmentation/job/{job_id}").json["state"] == "active"
    s.add_worker()
    job = c.wait_job(job_id, seconds=120)
    assert job["state"] == "completed" and job["attempt"] == 2
    assert s.sql("SELECT worker_id FROM jobs WHERE id = %s", job_id)[0][0] != first
    assert len(results_of(s, image)) == 1
    assert s.sql("SELECT count(*) FROM objects") == [(job["objectCount"],)]
    print(f"recovered and done {time.monotonic() - killed:.1f} s after the kill (lease 3 s)")
    assert_clean(s)


def test_stopped_worker_hands_its_job_back(own_stack):
    s = own_stack(workers=1, env={"STOP_TIMEOUT": "2"})
    c = Client(s).register()
    image = c.upload(c.project(), BIG).json
    job_id = c.segment(image)["jobId"]
    active_job(s, job_id)
    assert s.workers[0].stop(signal.SIGTERM, timeout=15) == 0
    state = c.get(f"/api/segmentation/job/{job_id}").json["state"]
    assert state in ("queued", "completed")
    s.add_worker()
    job = c.wait_job(job_id, seconds=120)
    assert job["state"] == "completed" and job["attempt"] == 1   # handing back costs no attempt
    assert len(results_of(s, image)) == 1
    assert_clean(s)


def test_frozen_worker_cannot_commit_late(own_stack):
    """A worker that sleeps past its lease wakes up to find its job done by another: its result changes nothing (I2)."""
    s = own_stack(workers=1)
    c = Client(s).register()
    image = c.upload(c.project(), BIG).json
    job_id = c.segment(image)["jobId"]
    active_job(s, job_id)
    s.workers[0].kill(signal.SIGSTOP)
    s.add_worker()
    job = c.wait_job(job_id, seconds=120)
    assert job["state"] == "completed" and job["attempt"] == 2
    s.workers[0].kill(signal.SIGCONT)
    time.sleep(6)
    assert s.workers[0].running
    assert len(results_of(s, image)) == 1
    assert s.sql("SELECT attempt FROM segmentations WHERE image_id = %s", image["id"]) == [(2,)]
    assert_clean(s)


def test_poison_image_ends_in_failed(own_stack):
    """Every worker that takes the job dies: after the last attempt it is failed with a reason."""
    s = own_stack(workers=0, env={"JOB_MAX_ATTEMPTS": "2", "JOB_LEASE": "1000"})
    c = Client(s).register()
    s.add_worker()
    image = c.upload(c.project(), BIG).json
    job_id = c.segment(image)["jobId"]
    for n in range(2):
        active_job(s, job_id, attempt=n + 1)
        s.workers[-1].kill(signal.SIGKILL)
        s.workers[-1].popen.wait()
        if n == 0:
            s.add_worker()
    s_state = c.wait_job(job_id, seconds=30)
    assert s_state["state"] == "failed" and s_state["error"]["code"] == "worker_lost"
    assert len(s_state["error"]["message"]) > 20


def test_redis_down_at_submit(own_stack):
    """The job is accepted because its row is committed; it runs when Redis is back, without anyone's help."""
    s = own_stack(workers=1)
    c = Client(s).register()
    image = c.upload(c.project(), SMALL).json
    s.redis.stop(signal.SIGKILL)
    accepted = c.segment(image)
    assert accepted["state"] == "queued"
    assert c.get("/api/health").json["status"] in ("degraded", "down")
    assert c.get(f"/api/segmentation/job/{accepted['jobId']}").json["state"] == "queued"
    s.start_redis()
    assert c.wait_job(accepted["jobId"], seconds=60)["state"] == "completed"
    assert_clean(s)


def test_flush_of_redis(own_stack):
    s = own_stack(workers=1)
    c = Client(s).register()
    p = c.project()
    jobs = [c.segment(c.upload(p, SMALL, f"{n}.png").json)["jobId"] for n in range(15)]
    s.redis_cli("FLUSHALL")
    for job in jobs:
        assert c.wait_job(job, seconds=90)["state"] == "completed"
    assert s.sql("SELECT count(*) FROM segmentations") == [(15,)]
    assert_clean(s)


def test_postgres_restart(own_stack):
    s = own_stack(workers=1)
    c = Client(s).register()
    p = c.project()
    jobs = [c.segment(c.upload(p, SMALL, f"{n}.png").json)["jobId"] for n in range(6)]
    s.postgres.stop(signal.SIGINT)
    answer = c.get("/api/projects")
    assert answer.status == 503 and answer.json["code"] == "database_unavailable"
    s.start_postgres()
    wait_until(lambda: c.get("/api/projects").status == 200, 15, "the gateway's recovery")
    for job in jobs:
        assert c.wait_job(job, seconds=90)["state"] == "completed"
    assert s.sql("SELECT count(*), count(DISTINCT image_id) FROM segmentations") == [(6, 6)]


def test_postgres_down_at_start(own_stack):
    """The gateway waits with a bound, says for what, and gives up with a clear message."""
    s = own_stack(start=False, workers=0, env={"START_TIMEOUT": "2"})
    s.start_gateway(wait=False)
    assert s.gateway.popen.wait(20) != 0
    log = s.gateway.log.read_text()
    assert "PostgreSQL" in log and "wait" in log.lower()


def test_wrong_settings_stop_the_start(own_stack):
    s = own_stack(start=False, workers=0)
    for name, value in (("HTTPS_PORT", "99999"), ("DB_POOL_MAX", "many"), ("LOG_LEVEL", "loud"), ("ENABLE_CIRCUIT_BREAKER", "maybe")):
        for daemon in ("gateway", "segworker"):
            if name == "HTTPS_PORT" and daemon == "segworker":
                continue
            done = subprocess.run([BUILD / daemon], env=s.daemon_env(**{name: value}), capture_output=True, text=True, timeout=20)
            assert done.returncode != 0 and name in done.stderr and value in done.stderr, (daemon, name, done)


def test_gateway_restart_keeps_everything(own_stack):
    s = own_stack(workers=1)
    c = Client(s).register()
    image = c.upload(c.project("kept"), BIG).json
    job_id = c.segment(image)["jobId"]
    s.gateway.kill(signal.SIGKILL)
    s.gateway.popen.wait()
    s.start_gateway()
    assert c.wait_job(job_id, seconds=120)["state"] == "completed"
    assert c.get("/api/projects").json["items"][0]["title"] == "kept"   # the token still counts
    start = time.monotonic()
    assert s.gateway.stop(signal.SIGTERM, timeout=25) == 0
    print(f"gateway stopped in {time.monotonic() - start:.1f} s")


def test_open_breaker_keeps_jobs_and_a_probe_closes_it(own_stack):
    """An open breaker is seen by the gateway and every worker; jobs wait, and one probe closes it."""
    s = own_stack(workers=2)
    c = Client(s).register()
    p = c.project()
    until = int(time.time() * 1000) + 6000
    s.redis_cli("HSET", "sg:breaker:nuclei", "open_until", until, "opened", "1", "probe", "")
    s.redis_cli("SADD", "sg:open", "nuclei")

    def breaker():
        return next(b for b in c.get("/api/segmentation/queue/status").json["breaker"] if b["model"] == "nuclei")
    jobs = [c.segment(c.upload(p, SMALL, f"{n}.png").json, model="nuclei")["jobId"] for n in range(4)]
    assert breaker()["state"] == "open" and 0 < breaker()["retrySeconds"] <= 6
    wait_until(lambda: [b["state"] for b in c.get("/api/health").json["breaker"] if b["model"] == "nuclei"] == ["open"], 5, "health")
    assert c.get("/api/health").json["status"] == "degraded"
    for port in (s.metrics_port, s.workers[0].metrics_port, s.workers[1].metrics_port):
        assert s.metric(port, "spheroseg_breaker_state", model="nuclei") == 2
    while time.time() * 1000 < until - 500:
        assert {c.get(f"/api/segmentation/job/{j}").json["state"] for j in jobs} == {"queued"}
        time.sleep(0.2)
    for job in jobs:
        assert c.wait_job(job, seconds=60)["state"] == "completed"
    assert breaker()["state"] == "closed" and breaker()["opened"] == 1
    assert_clean(s)


def test_a_failing_model_opens_the_breaker_of_all_workers(own_stack):
    """A model that fails each run: after some failures no worker takes its jobs; once it is repaired, all complete."""
    s = own_stack(workers=0, start=False)
    shutil.copytree(ROOT / "tests/chaos/models/test-broken", s.dir / "models/test-broken")
    broken = s.dir / "models/test-broken/broken"
    broken.touch()
    s.env.update(MODELS_DIR=str(s.dir / "models"), JOB_MAX_ATTEMPTS="20")
    s.worker_count = 2
    s.start()
    c = Client(s).register()
    p = c.project()
    jobs = [c.segment(c.upload(p, SMALL, f"{n}.png").json)["jobId"] for n in range(6)]

    def breaker():
        return c.get("/api/segmentation/queue/status").json["breaker"][0]
    wait_until(lambda: breaker()["state"] == "open", 20, "the breaker opening")
    assert breaker()["errorRate"] == 100 and breaker()["failures"] >= 5
    time.sleep(1)                                     # what had begun has ended
    attempts = s.sql("SELECT sum(attempt) FROM jobs")
    time.sleep(2)
    assert s.sql("SELECT sum(attempt) FROM jobs") == attempts and s.sql("SELECT count(*) FROM jobs WHERE state = 'active'") == [(0,)]
    s.redis_cli("HSET", "sg:breaker:test-broken", "open_until", "0")         # as if its time had passed
    wait_until(lambda: breaker()["opened"] == 2, 20, "a failed probe")
    assert s.sql("SELECT sum(attempt) FROM jobs") == [(attempts[0][0] + 1,)]
    broken.unlink()
    s.redis_cli("HSET", "sg:breaker:test-broken", "open_until", "0")
    for job in jobs:
        assert c.wait_job(job, seconds=60)["state"] == "completed"
    assert breaker()["state"] == "closed"
    assert_clean(s)


@pytest.mark.parametrize("when", ["queued", "active"])
def test_cancel(own_stack, when):
    s = own_stack(workers=1)
    c = Client(s).register()
    p = c.project()
    running = c.segment(c.upload(p, BIG).json)["jobId"]
    active_job(s, running)
    target = running if when == "active" else c.segment(c.upload(p, BIG, "second.png").json)["jobId"]
    start = time.monotonic()
    assert c.delete(f"/api/segmentation/job/{target}").status == 202
    assert c.wait_job(target, seconds=20)["state"] == "cancelled"
    print(f"cancelled after {time.monotonic() - start:.2f} s")
    if when == "active":
        # the worker is free again
        after = c.segment(c.upload(p, SMALL, "after.png").json)["jobId"]
        assert c.wait_job(after, seconds=30)["state"] == "completed"


def test_ten_gateways_migrate_at_once(own_stack):
    s = own_stack(start=False, workers=0)
    s.start_postgres()
    env = s.daemon_env()
    running = [subprocess.Popen([BUILD / "gateway", "migrate", "up"], env=env, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT) for _ in range(10)]
    for p in running:
        out, _ = p.communicate(timeout=60)
        assert p.returncode == 0, out
    versions = s.sql("SELECT version FROM schema_migrations ORDER BY version")
    assert versions == sorted(set(versions)) and versions
    assert subprocess.run([BUILD / "gateway", "migrate", "down", str(len(versions))], env=env, timeout=60).returncode == 0
    assert s.sql("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public' AND table_name = 'jobs'") == [(0,)]
    assert subprocess.run([BUILD / "gateway", "migrate", "up"], env=env, timeout=60).returncode == 0


def test_two_workers_share_the_load(own_stack):
    s = own_stack(workers=2)
    c = Client(s).register()
    p = c.project()
    jobs = [c.segment(c.upload(p, SMALL, f"{n}.png").json)["jobId"] for n in range(20)]
    for job in jobs:
        assert c.wait_job(job, seconds=90)["state"] == "completed"
    (workers,), = s.sql("SELECT count(DISTINCT worker_id) FROM jobs")
    assert workers == 2
    assert s.sql("SELECT count(*), count(DISTINCT job_id) FROM segmentations") == [(20, 20)]
    assert_clean(s)


def test_failures_are_counted_from_zero(own_stack):
    """What alerts take rates of is there before the first failure: a series that begins with 1 has not risen."""
    s = own_stack(workers=1)
    route = "/api/images/{imageId}/segmentation"
    assert s.metric(s.metrics_port, "spheroseg_http_requests_total", method="POST", route=route, status="5xx") == 0
    assert s.metric(s.metrics_port, "spheroseg_http_requests_total", method="GET", route="static", status="5xx") == 0
    assert s.metric(s.metrics_port, "spheroseg_db_errors_total", sqlstate_class="connection") == 0
    worker = s.workers[0].metrics_port
    for model in ("nuclei", "spheroid", "classical_nuclei"):
        for outcome in ("completed", "failed"):
            assert s.metric(worker, "spheroseg_jobs_total", model=model, outcome=outcome) == 0
    assert s.metric(worker, "spheroseg_db_errors_total", sqlstate_class="57") == 0


def test_metrics_come_in_time_when_all_connections_are_taken(own_stack):
    """A locked table holds every connection of the pool: monitoring must see that now, not when it is over."""
    s = own_stack(workers=0, env={"DB_POOL_MAX": "2", "DB_POOL_ACQUIRE_TIMEOUT": "20000"})
    c = Client(s).register()
    with contextlib.closing(s.database()) as db, db.cursor() as cursor:
        cursor.execute("LOCK TABLE projects IN ACCESS EXCLUSIVE MODE")
        people = [threading.Thread(target=c.get, args=("/api/projects",)) for _ in range(4)]
        for person in people:
            person.start()
        wait_until(lambda: s.metric(s.metrics_port, "spheroseg_db_pool_connections", state="in_use") == 2, 10, "a pool that is used up")
        for _ in range(10):     # whichever of them finds what is known too old
            start = time.monotonic()
            assert s.metric(s.metrics_port, "spheroseg_db_pool_connections", state="in_use") == 2
            assert c.get("/api/health/services/database").json["name"] == "database"
            assert time.monotonic() - start < 5
            time.sleep(0.3)
        wait_until(lambda: c.get("/api/health").json["status"] == "degraded", 10, "a word about the silent database")
        db.rollback()
    for person in people:
        person.join()
    wait_until(lambda: s.metric(s.metrics_port, "spheroseg_db_pool_waiting") == 0 and c.get("/api/projects").status == 200, 30, "all well again")
