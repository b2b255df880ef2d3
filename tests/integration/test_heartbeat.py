"""The end-to-end check: it passes over a system that works, and says which step broke where one does not."""
import re
import time

from harness import BUILD, Process, free_port, http_get, wait_until


def heartbeat(stack, name, *args, **env):
    settings = {"HEARTBEAT_URL": stack.url, "HEARTBEAT_PASSWORD": "a pulse of its own 1", "HEARTBEAT_CA": "none", **env}
    process = Process(name, [BUILD / "gateway", "heartbeat", *args], stack.daemon_env(**settings), stack.logs)
    process.start()
    return process


def test_a_beat_takes_an_image_through(stack):
    beat = heartbeat(stack, "heartbeat-once", "--once")
    assert beat.popen.wait(90) == 0, beat.tail()
    owner = stack.sql("SELECT id FROM users WHERE email = 'heartbeat@spheroseg.local'")
    assert len(owner) == 1
    assert stack.sql("SELECT count(*) FROM images i JOIN projects p ON p.id = i.project_id WHERE p.owner_id = %s", owner[0][0]) == [(0,)]
    again = heartbeat(stack, "heartbeat-twice", "--once")   # the account is there already
    assert again.popen.wait(90) == 0, again.tail()


def test_figures(stack):
    port = free_port()
    beat = heartbeat(stack, "heartbeat-serve", HEARTBEAT_INTERVAL="5", METRICS_PORT=str(port))
    try:
        wait_until(lambda: beat.running and http_get(port, "/ready")[0] == 200, 90, "a first beat")
        text = http_get(port, "/metrics")[1].decode()
        last = float(re.search(r"^spheroseg_heartbeat_success_timestamp_seconds (\S+)", text, re.M)[1])
        assert abs(last - time.time()) < 30
        assert float(re.search(r"^spheroseg_heartbeat_certificate_left_seconds (\S+)", text, re.M)[1]) > 86400
        for step in ("sign in", "upload", "segment", "look", "delete"):
            assert f'spheroseg_heartbeat_step_seconds{{step="{step}"}}' in text
            assert f'spheroseg_heartbeat_failures_total{{step="{step}"}} 0\n' in text  # before the first failure
    finally:
        assert beat.stop() == 0, beat.tail()


def test_the_wrong_authority_is_noticed(stack):
    beat = heartbeat(stack, "heartbeat-ca", "--once", HEARTBEAT_CA="")
    assert beat.popen.wait(60) == 1
    assert '"step":"sign in"' in beat.log.read_text() and "certificate" in beat.log.read_text()


def test_a_system_without_workers_fails_it(own_stack):
    stack = own_stack(workers=1)
    stack.workers[0].stop()
    beat = heartbeat(stack, "heartbeat-nobody", "--once", HEARTBEAT_INTERVAL="5")
    assert beat.popen.wait(60) == 1
    assert '"step":"segment"' in beat.log.read_text()
    assert stack.sql("SELECT count(*) FROM images") == [(0,)]  # it takes its image away again
