"""What the live events promise: nothing that matters is lost by a reconnect or a restart, nobody is shown a step back,
every replica says the same, and slow or dead clients cost only themselves."""
import json
import socket
import time
import uuid

import images
from api import Client, WebSocket
from harness import Process, BUILD, free_port, wait_until

SMALL = images.png(images.nuclei()[0])
LARGER = images.png(images.nuclei(width=900, height=900, count=80)[0])


def subscribed(client, project):
    ws = WebSocket(client)
    assert ws.status == 101
    ws.send({"type": "subscribe", "projectId": project["id"]})
    return ws, ws.until(lambda m: m["type"] == "snapshot")[-1]


def publish(stack, project, **fields):
    event = {"type": "job", "projectId": project["id"], "imageId": str(uuid.uuid4()), "stage": "", "progress": 0,
             "attempt": 1, **fields}
    stack.redis_cli("PUBLISH", f"sg:events:{project['id']}", json.dumps(event))


def marker(ws, stack, project):
    """Everything that was sent up to now."""
    job = str(uuid.uuid4())
    publish(stack, project, jobId=job, seq=1, state="failed")
    return ws.until(lambda m: m.get("jobId") == job)[:-1]


def second_gateway(stack):
    port, metrics = free_port(), free_port()
    gateway = Process("gateway2", [BUILD / "gateway"], stack.daemon_env(HTTPS_PORT=port, HTTP_PORT=0,
                                                                        METRICS_PORT=metrics), stack.logs).start()
    stack._ready(gateway, metrics, 60)
    return gateway, port


def test_no_job_is_ever_shown_a_step_back(stack, alice):
    """Without any rule in the client: what arrives is in order, for each job."""
    project = alice.project("order")
    pictures = [alice.upload(project, SMALL, f"{n}.png").json for n in range(4)]
    ws, _ = subscribed(alice, project)
    jobs = {alice.segment(image)["jobId"] for image in pictures}
    last, done = {}, set()
    while done != jobs:
        m = ws.until(lambda m: m["type"] == "job", timeout=60)[-1]
        assert m["seq"] > last.get(m["jobId"], 0), m
        last[m["jobId"]] = m["seq"]
        if m["state"] == "completed":
            done.add(m["jobId"])


def test_an_overtaken_event_is_left_out(stack, alice):
    project, job, other = alice.project("late"), str(uuid.uuid4()), str(uuid.uuid4())
    ws, _ = subscribed(alice, project)
    publish(stack, project, jobId=job, seq=10, state="active")
    publish(stack, project, jobId=job, seq=9, state="queued")
    publish(stack, project, jobId=job, seq=10, state="active")
    publish(stack, project, jobId=other, seq=3, state="queued")
    publish(stack, project, jobId=job, seq=11, state="completed")
    assert [(m["jobId"], m["seq"]) for m in marker(ws, stack, project)] in (
        [(job, 10), (other, 3), (job, 11)], [(other, 3), (job, 11)])  # the last progress may be replaced
    ws.close()


def test_an_event_older_than_the_snapshot_is_left_out(stack, alice):
    """For those who had the snapshot; whoever listened before still gets it."""
    project = alice.project("snapshot")
    job = alice.wait_job(alice.segment(alice.upload(project, SMALL).json)["jobId"])
    first, snapshot = subscribed(alice, project)
    assert [(j["id"], j["seq"]) for j in snapshot["jobs"]] == [(job["id"], job["seq"])]
    publish(stack, project, jobId=job["id"], seq=job["seq"] - 1, state="active")
    assert marker(first, stack, project) == []
    publish(stack, project, jobId=job["id"], seq=job["seq"] + 1, state="queued")
    assert [m["seq"] for m in marker(first, stack, project)] == [job["seq"] + 1]
    first.close()


def test_reconnect_across_a_restart_of_the_gateway(own_stack):
    s = own_stack(workers=1)
    c = Client(s).register()
    project = c.project()
    image = c.upload(project, LARGER).json
    ws, _ = subscribed(c, project)
    job = c.segment(image)["jobId"]
    seen = [m for m in ws.until(lambda m: m["type"] == "job" and m["state"] == "active") if m["type"] == "job"]
    assert s.gateway.stop() == 0
    closed = "nothing"
    while closed == "nothing":  # what was under way still arrives, and then the reason
        closed = ws.receive() and "nothing"
    assert ws.close_code == 1001
    wait_until(lambda: s.sql("SELECT state FROM jobs WHERE id = %s", job)[0][0] == "completed", 60, "the job's end")
    s.start_gateway()
    ws, snapshot = subscribed(c, project)
    mine = [j for j in snapshot["jobs"] if j["id"] == job]
    assert mine and mine[0]["state"] == "completed" and mine[0]["seq"] > max(m["seq"] for m in seen)
    # and the stream goes on: the same image again
    again = c.segment(image)["jobId"]
    events = [m for m in ws.until(lambda m: m["type"] == "job" and m["state"] == "completed", timeout=60)
              if m["type"] == "job"]
    assert {m["jobId"] for m in events} == {again}
    assert [m["seq"] for m in events] == sorted({m["seq"] for m in events})


def test_two_replicas_tell_the_same(own_stack):
    """Progress may be thinned out for whoever reads slowly; every other change arrives, in one order everywhere."""
    s = own_stack(workers=2)
    gateway, port = second_gateway(s)
    try:
        c = Client(s).register()
        project = c.project()
        here, there = subscribed(c, project)[0], None
        first_port, s.https_port = s.https_port, port
        there = subscribed(c, project)[0]
        s.https_port = first_port
        pictures = [c.upload(project, SMALL, f"{n}.png").json for n in range(6)]
        jobs = {c.segment(image)["jobId"] for image in pictures}
        told = []
        for ws in (here, there):
            events, done = [], set()
            while done != jobs:
                m = ws.until(lambda m: m["type"] == "job", timeout=60)[-1]
                events.append(m)
                if m["state"] == "completed":
                    done.add(m["jobId"])
            for job in jobs:
                sequence = [m["seq"] for m in events if m["jobId"] == job]
                assert sequence == sorted(set(sequence))
            told.append([(m["jobId"], m["seq"], m["state"]) for m in events if m["state"] != "active"])
        assert told[0] == told[1] and len(told[0]) >= len(jobs)
    finally:
        gateway.stop()


def test_a_slow_client_is_dropped_with_a_reason_and_others_go_on(own_stack):
    s = own_stack(workers=0, env={"WS_QUEUE_MAX": "64"})
    c = Client(s).register()
    quiet, flooded = c.project("quiet"), c.project("flooded")
    slow, good = subscribed(c, flooded)[0], subscribed(c, quiet)[0]
    redis = socket.create_connection(("127.0.0.1", s.redis_port))
    redis.sendall(f"AUTH {s.redis_password}\r\n".encode())
    assert redis.recv(100) == b"+OK\r\n"
    count, end, job = 0, time.monotonic() + 60, str(uuid.uuid4())
    delays = []
    while not s.metric(s.metrics_port, "spheroseg_websocket_slow_total"):
        assert time.monotonic() < end, "it was never dropped"
        for _ in range(100):  # 8 KiB each: the kernel's buffers have to fill first
            count += 1
            event = json.dumps({"type": "job", "projectId": flooded["id"], "jobId": str(uuid.uuid4()), "seq": count,
                                "state": "completed", "padding": "x" * 8000})
            redis.sendall(b"PUBLISH sg:events:%s '%s'\r\n" % (flooded["id"].encode(), event.encode()))
            redis.recv(100)
        start = time.monotonic()
        publish(s, quiet, jobId=job, seq=count, state="completed")
        good.until(lambda m: m["type"] == "job" and m["seq"] == count, timeout=5)
        delays.append(time.monotonic() - start)
    received = 0
    while slow.receive() is not None:  # it wakes up in time to hear why
        received += 1
    assert slow.close_code == 4408 and received < count
    publish(s, quiet, jobId=job, seq=count + 1, state="completed")
    good.until(lambda m: m["type"] == "job" and m["seq"] == count + 1, timeout=5)
    ws, snapshot = subscribed(c, flooded)  # the dropped one may come back
    assert snapshot["projectId"] == flooded["id"]
    ws.close()


def test_a_dead_client_is_found_by_ping(own_stack):
    """One answers pings, one has stopped without a word: no FIN, no RST, only silence."""
    s = own_stack(workers=0, env={"WS_PING_INTERVAL": "500"})
    c = Client(s).register()
    alive, dead = WebSocket(c), WebSocket(c)
    assert [alive.status, dead.status] == [101, 101]
    end = time.monotonic() + 10
    while s.metric(s.metrics_port, "spheroseg_websockets") != 1:
        assert time.monotonic() < end
        try:
            alive.receive(timeout=0.3)  # answers what comes
        except TimeoutError:
            pass
    alive.send({"type": "ping", "t": 1})
    alive.until(lambda m: m["type"] == "pong")


def test_the_cap_counts_those_who_sign_in_by_message(own_stack):
    s = own_stack(workers=0, env={"WS_MAX_PER_USER": "1"})
    c = Client(s).register()
    first, second = WebSocket(c), WebSocket(c, cookies=False)
    assert [first.status, second.status] == [101, 101]
    second.send({"type": "auth", "token": c.token})
    assert second.receive()["code"] == "too_many_sockets"
    assert second.receive() is None and second.close_code == 4429
    first.send({"type": "ping", "t": 1})
    first.until(lambda m: m["type"] == "pong")


def test_answers_keep_the_order_of_the_questions(stack, alice):
    """Subscribing asks the database; a ping that was sent after it is not answered before it."""
    projects = [alice.project(f"p{n}") for n in range(3)]
    ws = WebSocket(alice)
    for n, p in enumerate(projects):
        ws.send({"type": "subscribe", "projectId": p["id"]})
        ws.send({"type": "ping", "t": n})
    seen = []
    while len(seen) < 6:
        m = ws.receive()
        seen.append(m["projectId"] if m["type"] == "snapshot" else m["t"])
    assert seen == [x for n, p in enumerate(projects) for x in (p["id"], n)]
    ws.close()


def test_http_goes_on_with_more_sockets_than_threads(own_stack):
    s = own_stack(workers=0, env={"HTTP_THREADS": "8", "WS_MAX_PER_USER": "40"})
    c = Client(s).register()
    project = c.project()
    sockets = [subscribed(c, project)[0] for _ in range(40)]
    assert c.get("/api/projects").status == 200
    publish(s, project, jobId=str(uuid.uuid4()), seq=1, state="completed")
    for ws in sockets:
        ws.until(lambda m: m["type"] == "job", timeout=5)
    assert s.gateway.stop() == 0
    for ws in sockets:
        assert ws.receive() is None and ws.close_code == 1001
