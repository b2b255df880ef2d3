"""The short form of `make chaos`: at least two minutes, 1,000 jobs and 50 kills. CHAOS_SEED repeats a choice of faults."""
import os
import random
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

import chaos  # noqa: E402
import verify  # noqa: E402
from stack import faketime_library  # noqa: E402


def test_nothing_is_lost_or_doubled():
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 31))
    print(f"chaos: seed {seed}", flush=True)
    report = chaos.run(seconds=120, seed=seed, jobs=1000, kills=50)
    print(report.text(), flush=True)
    assert not report.problems, report.text()
    assert report.jobs >= 1000 and report.kills >= 50, report.text()


@pytest.mark.skipif(faketime_library() is None, reason="libfaketime is not installed: the clocks of the daemons cannot jump")
def test_clocks_can_jump():
    """What the long test says about clock jumps is only true if a daemon under libfaketime really sees another time."""
    import subprocess
    env = {"LD_PRELOAD": str(faketime_library()), "FAKETIME": "+86400", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    now = int(subprocess.run(["date", "+%s"], capture_output=True, check=True).stdout)
    jumped = int(subprocess.run(["date", "+%s"], capture_output=True, check=True, env=env).stdout)
    assert 86390 < jumped - now < 86410


def test_a_lost_job_would_be_noticed():
    """The judgement itself: a database in which something is wrong is not passed."""
    s = chaos.ChaosStack(gateways=1, workers=1)
    try:
        s.start()
        load = chaos.Load(s, people=1, seed=1, pictures=3)
        person = load.people[0]
        jobs = []
        for image in person.images:
            jobs.append(person.post(f"/api/images/{image['id']}/segmentation", {"model": "test-quick"}).json["jobId"])
            person.keep([(jobs[-1], image["id"])])
        assert verify.wait_for_the_end(s, 30)[1] == []
        assert verify.check_rows(s, load.ledger) == [] and verify.check_accepted(s, load.ledger)[1] == []
        s.sql("DELETE FROM objects WHERE segmentation_id = (SELECT id FROM segmentations WHERE job_id = %s)", jobs[0])
        assert any("polygons" in w for w in verify.check_rows(s, load.ledger))
        s.sql("UPDATE jobs SET state = 'queued' WHERE id = %s", jobs[1])
        assert any("no legal change" in w for w in verify.check_rows(s, load.ledger))
        s.sql("DELETE FROM jobs WHERE id = %s", jobs[2])
        assert verify.check_accepted(s, load.ledger)[1] == [jobs[2]]
        s.redis_cli("HSET", "sg:held", jobs[0], "0123456789abcdef ghost")
        assert "sg:held" in verify.left_in_redis(s)
    finally:
        s.stop()
