"""Live events: authenticated, complete, in order, and safe from slow or foreign clients."""
import time

import images
import pytest
from api import Client, WebSocket

SMALL = images.png(images.nuclei()[0])


def test_progress_arrives_in_order(stack, alice):
    project = alice.project("live")
    image = alice.upload(project, images.png(images.nuclei(width=900, height=900, count=80)[0])).json
    ws = WebSocket(alice)
    assert ws.status == 101
    ws.send({"type": "subscribe", "projectId": project["id"]})
    snapshot = ws.until(lambda m: m["type"] == "snapshot")[-1]
    assert snapshot["projectId"] == project["id"] and snapshot["imageCount"] == 1
    job_id = alice.segment(image)["jobId"]
    seen = ws.until(lambda m: m["type"] == "job" and m["state"] == "completed", timeout=60)
    events = [m for m in seen if m["type"] == "job"]
    assert {m["jobId"] for m in events} == {job_id} and {m["imageId"] for m in events} == {image["id"]}
    sequence = [m["seq"] for m in events]
    assert sequence == sorted(set(sequence))
    states = [m["state"] for m in events]
    assert "active" in states and states[-1] == "completed" and events[-1]["objectCount"] > 0
    active = [m["progress"] for m in events if m["state"] == "active"]
    assert active == sorted(active) and len(active) >= 2
    ws.close()


def test_snapshot_after_reconnect_shows_what_was_missed(stack, alice):
    project = alice.project("missed")
    image = alice.upload(project, SMALL).json
    ws = WebSocket(alice)
    ws.send({"type": "subscribe", "projectId": project["id"]})
    ws.until(lambda m: m["type"] == "snapshot")
    ws.close()
    job = alice.wait_job(alice.segment(image)["jobId"])
    ws = WebSocket(alice)
    ws.send({"type": "subscribe", "projectId": project["id"]})
    snapshot = ws.until(lambda m: m["type"] == "snapshot")[-1]
    mine = [j for j in snapshot["jobs"] if j["id"] == job["id"]]
    assert mine and mine[0]["state"] == "completed" and mine[0]["seq"] == job["seq"]


def test_ping_queue_feed_and_image_events(stack, alice):
    project = alice.project()
    ws = WebSocket(alice)
    ws.send({"type": "ping", "t": 42})
    assert ws.until(lambda m: m["type"] == "pong")[-1]["t"] == 42
    ws.send({"type": "subscribe", "queue": True})
    assert "waiting" in ws.until(lambda m: m["type"] == "queue")[-1]
    ws.send({"type": "subscribe", "projectId": project["id"]})
    ws.until(lambda m: m["type"] == "snapshot")
    image = alice.upload(project, SMALL).json
    event = ws.until(lambda m: m["type"] == "image" and m["change"] == "created")[-1]
    assert event["imageId"] == image["id"]
    ws.until(lambda m: m["type"] == "image" and m["change"] == "thumbnail")
    alice.delete(f"/api/images/{image['id']}")
    ws.until(lambda m: m["type"] == "image" and m["change"] == "deleted")


def test_foreign_origin_is_refused(stack, alice):
    assert WebSocket(alice, origin="https://evil.example").status == 403


def test_nobody_is_closed(stack):
    ws = WebSocket(Client(stack), cookies=False)
    if ws.status == 101:
        start = time.monotonic()
        try:
            while ws.receive(timeout=40) is not None:
                pass
        except EOFError:
            pass
        assert time.monotonic() - start < 30
    else:
        assert ws.status == 401


def test_first_message_authenticates(stack, alice):
    ws = WebSocket(alice, cookies=False)
    assert ws.status == 101
    ws.send({"type": "auth", "token": alice.token})
    ws.send({"type": "ping", "t": 1})
    ws.until(lambda m: m["type"] == "pong")


def test_someone_elses_project(stack, alice, mallory):
    project = alice.project("private")
    ws = WebSocket(mallory)
    ws.send({"type": "subscribe", "projectId": project["id"]})
    assert ws.until(lambda m: m["type"] in ("error", "snapshot"))[-1]["type"] == "error"
    alice.upload(project, SMALL)
    ws.send({"type": "ping", "t": 9})
    assert not [m for m in ws.until(lambda m: m["type"] == "pong") if m.get("projectId") == project["id"] and m["type"] != "error"]


@pytest.mark.parametrize("message", [b"not json", b"[]", b'{"type":"dance"}', b'{"type":"subscribe","projectId":"x"}',
                                     b'{"type":"subscribe"}', b"[" * 3000])
def test_bad_messages_get_an_error(stack, alice, message):
    ws = WebSocket(alice)
    ws.send(message)
    assert ws.until(lambda m: m["type"] == "error")[-1]["code"]
    ws.send({"type": "ping", "t": 1})
    ws.until(lambda m: m["type"] == "pong")


def test_sockets_are_capped(own_stack):
    s = own_stack(workers=0, env={"WS_MAX_PER_USER": "3", "WS_MAX_TOTAL": "5"})
    c, d = Client(s).register(), Client(s).register()
    first = [WebSocket(c) for _ in range(3)]
    assert [w.status for w in first] == [101] * 3
    assert WebSocket(c).status == 429
    second = [WebSocket(d) for _ in range(2)]
    assert [w.status for w in second] == [101] * 2
    assert WebSocket(d).status == 503
    first[0].close()
    time.sleep(0.5)
    assert WebSocket(d).status == 101


def test_slow_client_does_not_stop_others(own_stack):
    """One socket never reads; another one still gets every event, and the gateway's memory stays bounded."""
    s = own_stack(workers=1, env={"WS_QUEUE_MAX": "16"})
    c = Client(s).register()
    p = c.project()
    slow, good = WebSocket(c), WebSocket(c)
    for ws in (slow, good):
        ws.send({"type": "subscribe", "projectId": p["id"]})
    good.until(lambda m: m["type"] == "snapshot")
    done = set()
    jobs = [c.upload(p, SMALL, f"{n}.png", "&segment=true").json["job"]["id"] for n in range(20)]
    while len(done) < 20:
        done.add(good.until(lambda m: m["type"] == "job" and m["state"] == "completed", timeout=60)[-1]["jobId"])
    assert done == set(jobs)
