"""What an operator does to a running system: pausing a model, cancelling and retrying many jobs, looking at the waits."""
import time

import images
from api import Client, WebSocket
from harness import ROOT, wait_until
from test_contract import check

SMALL = images.png(images.nuclei()[0])


def admin(stack):
    c = Client(stack).register()
    stack.sql("UPDATE users SET role = 'admin' WHERE email = %s", c.email)
    c.token = c.post("/api/auth/login", {"email": c.email, "password": c.password}).json["accessToken"]
    return c


def states(client, jobs):
    return [client.get(f"/api/segmentation/job/{j}").json["state"] for j in jobs]


def test_pause_and_resume(own_stack):
    s = own_stack(workers=1)
    c, boss = Client(s).register(), admin(s)
    answer = check(c.post("/api/models/nuclei/pause"), "POST", "/api/models/{name}/pause")
    assert answer.status == 403 and answer.code == "admin_only"
    assert check(boss.post("/api/models/nothing/pause"), "POST", "/api/models/{name}/pause").status == 404
    assert check(boss.post("/api/models/nuclei/pause"), "POST", "/api/models/{name}/pause").json["paused"] is True
    p = c.project()
    jobs = [c.segment(c.upload(p, SMALL, f"{n}.png").json, model="nuclei")["jobId"] for n in range(3)]
    other = c.segment(c.upload(p, SMALL, "other.png").json, model="spheroid")["jobId"]
    assert c.wait_job(other, seconds=30)["state"] == "completed"       # the other model goes on
    time.sleep(1.5)
    assert states(c, jobs) == ["queued"] * 3
    assert [(m["name"], m["paused"]) for m in c.get("/api/models").json["items"]] == [("nuclei", True), ("phase_contrast", False), ("spheroid", False), ("classical", False), ("classical_nuclei", False)]
    by_model = {m["model"]: m for m in c.get("/api/segmentation/queue/status").json["byModel"]}
    assert by_model["nuclei"]["paused"] and by_model["nuclei"]["waiting"] == 3
    s.redis_cli("FLUSHALL")                                             # Redis forgets; PostgreSQL does not
    time.sleep(3)
    assert states(c, jobs) == ["queued"] * 3
    assert check(boss.post("/api/models/nuclei/resume"), "POST", "/api/models/{name}/resume").json["paused"] is False
    for job in jobs:
        assert c.wait_job(job, seconds=30)["state"] == "completed"


def test_cancel_and_retry_ten_thousand(own_stack):
    """Both are set-based: seconds, not one round trip per job; every change is published."""
    s = own_stack(workers=1)
    c = Client(s).register()
    p = c.project()
    assert c.wait_job(c.segment(c.upload(p, SMALL).json)["jobId"])["state"] == "completed"
    s.workers[0].stop()
    s.sql("INSERT INTO images (project_id, name, format, byte_size, sha256, storage_key, width, height, bit_depth, channels) "
          "SELECT %s, 'i', 'png', 1, sha256('x'), 'nothing', 8, 8, 8, 1 FROM generate_series(1, 9999)", p["id"])
    path = f"/api/projects/{p['id']}/segmentation"
    assert c.post(path, {"all": True}).json["accepted"] == 10000
    start = time.monotonic()
    assert c.post(f"{path}/cancel").json == {"cancelled": 10000}
    cancelled = time.monotonic() - start
    assert dict(s.sql("SELECT state, count(*) FROM jobs GROUP BY state")) == {"cancelled": 10000, "completed": 1}
    assert not [k for k in s.redis_cli("KEYS", "sg:q:*").split()]
    s.sql("UPDATE jobs SET state = 'failed', error_code = 'x', error_message = 'y' WHERE state = 'cancelled'")
    start = time.monotonic()
    assert c.post(f"{path}/retry-failed").json == {"retried": 10000}
    retried = time.monotonic() - start
    assert s.sql("SELECT count(*) FROM jobs WHERE state = 'queued'") == [(10000,)]
    print(f"10,000 jobs cancelled in {cancelled:.2f} s, retried in {retried:.2f} s")
    assert cancelled < 30 and retried < 30
    assert c.post(f"{path}/cancel").json == {"cancelled": 10000}


def test_estimates(own_stack):
    """Measured times become estimates of waiting and running jobs, in jobs, lists and the queue's status."""
    s = own_stack(workers=1)
    c = Client(s).register()
    p = c.project()
    job = c.segment(c.upload(p, SMALL, "first.png").json, model="nuclei")["jobId"]
    done = c.wait_job(job)
    assert done["state"] == "completed" and done["etaSeconds"] is None
    wait_until(lambda: s.redis_cli("HGET", "sg:seconds", "nuclei"), 5, "a measured time")
    boss = admin(s)
    time.sleep(1.1)                                    # what is known about workers is a second old at most
    jobs = [c.segment(c.upload(p, SMALL, f"{n}.png").json, model="nuclei")["jobId"] for n in range(30)]
    listed = [j for j in c.get("/api/segmentation/jobs?state=queued&limit=100").json["items"] if j["position"] is not None]
    if len(listed) > 1:
        listed.sort(key=lambda j: j["position"])
        assert all(j["etaSeconds"] > 0 for j in listed) and listed[0]["etaSeconds"] < listed[-1]["etaSeconds"]
        assert c.get("/api/segmentation/queue/status").json["etaSeconds"] > 0
    assert boss.post("/api/models/nuclei/pause").status == 200
    for j in jobs:
        wait_until(lambda j=j: c.get(f"/api/segmentation/job/{j}").json["state"] != "active", 30, "the running job's end")
    time.sleep(1.1)
    for j in jobs:
        assert c.get(f"/api/segmentation/job/{j}").json["etaSeconds"] is None
    assert boss.post("/api/models/nuclei/resume").status == 200
    for j in jobs:
        assert c.wait_job(j)["state"] == "completed"
    assert c.get("/api/segmentation/queue/status").json["etaSeconds"] is None


def test_both_daemons_run_with_the_least_rights_in_redis(own_stack):
    """proto/redis-acl.conf is enough for a whole job, its cancellation and recovery, and for live events."""
    s = own_stack(start=False, workers=0)
    s.start_postgres()
    s.start_redis()
    line = next(x for x in (ROOT / "proto/redis-acl.conf").read_text().splitlines() if x.startswith("user spheroseg "))
    assert s.redis_cli("ACL", "SETUSER", *line.replace("@PASSWORD@", "least").split()[1:]) == "OK"
    s.env["REDIS_URL"] = f"redis://spheroseg:least@127.0.0.1:{s.redis_port}/0"
    s.start_gateway()
    s.add_worker()
    c = Client(s).register()
    p = c.project()
    socket = WebSocket(c)
    socket.send({"type": "subscribe", "projectId": p["id"]})
    job = c.segment(c.upload(p, SMALL).json)["jobId"]
    while (message := socket.receive()).get("state") != "completed":
        assert message["type"] != "error"
    assert c.wait_job(job)["state"] == "completed"
    assert c.post(f"/api/projects/{p['id']}/segmentation", {"all": True}).status == 202
    assert c.post(f"/api/projects/{p['id']}/segmentation/cancel").status == 200
    time.sleep(2)                                      # sweeps and heartbeats
    logs = s.gateway.log.read_text() + s.workers[0].log.read_text()
    assert "NOPERM" not in logs and "NOPERM" not in s.redis_cli("ACL", "LOG")
