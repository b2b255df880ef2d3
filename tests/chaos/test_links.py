"""One link is cut at the worst moment: what was decided meanwhile is still told to those who look."""
import sys
import pathlib

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from stack import LEASE, ChaosStack  # noqa: E402
import pytest  # noqa: E402
from harness import wait_until  # noqa: E402
from load import Load  # noqa: E402
from watch import Watcher  # noqa: E402


@pytest.fixture
def system(request):
    s = ChaosStack(gateways=1, workers=getattr(request, "param", 1))
    s.start()
    yield s
    s.stop()


@pytest.fixture
def two_gateways():
    s = ChaosStack(gateways=2, workers=1)
    s.start()
    yield s
    s.stop()


def state(s, job):
    return s.sql("SELECT state FROM jobs WHERE id = %s", job)[0][0]


def completed_in_silence(s):
    """(watcher, job): the worker has committed the job, and is cut off from Redis since before."""
    person = Load(s, people=1, seed=1, pictures=1).people[0]
    watcher = Watcher(s, person)
    watcher.start()
    wait_until(lambda: watcher.connections, 30, "the subscription")
    job = person.post(f"/api/images/{person.images[0]['id']}/segmentation", {"model": "test-slow"}).json["jobId"]
    wait_until(lambda: state(s, job) == "active", 30, "the claim")
    s.proxy.set("worker1.redis", cut=True)
    wait_until(lambda: state(s, job) == "completed", 30, "the commit")
    return watcher, job


def test_an_end_that_could_not_be_announced_is_told_later(system):
    """The worker commits while Redis cannot be reached from it: its event is lost, but not for ever."""
    s = system
    watcher, job = completed_in_silence(s)
    s.proxy.set("worker1.redis", cut=False)
    wait_until(lambda: watcher.jobs[job][1] == "completed", LEASE + 5, "the news")
    assert watcher.connections == 1
    watcher.over.set()


def test_an_end_is_told_although_redis_was_wiped_before_it_could_be(system):
    """As above, and Redis forgets the claim meanwhile: no lease is left that would run out."""
    s = system
    watcher, job = completed_in_silence(s)
    s.redis_cli("FLUSHALL")
    wait_until(lambda: watcher.jobs[job][1] == "completed", 30, "the news")
    assert watcher.connections == 1
    watcher.over.set()


def test_a_cancellation_that_could_not_be_announced_is_told_later(system):
    """The same at the gateway: a waiting job is cancelled while Redis cannot be reached from there."""
    s = system
    load = Load(s, people=1, seed=1, pictures=2)
    person = load.people[0]
    watcher = Watcher(s, person)
    watcher.start()
    wait_until(lambda: watcher.connections, 10, "the subscription")
    s.crew[0].told_to_end = True
    s.crew[0].process.stop(9)
    job = person.post(f"/api/images/{person.images[0]['id']}/segmentation", {"model": "test-slow"}).json["jobId"]
    wait_until(lambda: watcher.jobs.get(job, (0, ""))[1] == "queued", 10, "the news of the job")
    s.proxy.set("gateway1.redis", cut=True)
    assert person.delete(f"/api/segmentation/job/{job}").status == 202
    assert state(s, job) == "cancelled"
    s.proxy.set("gateway1.redis", cut=False)
    s.crew[0].start()
    wait_until(lambda: watcher.jobs[job][1] == "cancelled", 30, "the news")
    watcher.over.set()


def test_a_cancellation_by_a_gateway_that_dies_is_told_by_others(two_gateways):
    """It committed, and could not tell. Who looks through the other gateway hears of it all the same."""
    s = two_gateways
    person = Load(s, people=1, seed=1, pictures=1).people[0]
    person.gateways, person.door = s.gateways[:1], s.gateways[0]
    watcher = Watcher(s, person)   # it begins with the second gateway
    watcher.start()
    wait_until(lambda: watcher.connections, 30, "the subscription")
    s.crew[0].told_to_end = True
    s.crew[0].process.stop(9)
    job = person.post(f"/api/images/{person.images[0]['id']}/segmentation", {"model": "test-slow"}).json["jobId"]
    wait_until(lambda: watcher.jobs.get(job, (0, ""))[1] == "queued", 30, "the news of the job")
    s.proxy.set("gateway1.redis", cut=True)
    assert person.delete(f"/api/segmentation/job/{job}").status == 202
    assert state(s, job) == "cancelled"
    s.gateways[0].told_to_end = True
    s.gateways[0].process.stop(9)
    wait_until(lambda: watcher.jobs[job][1] == "cancelled", 30, "the news")
    assert watcher.connections == 1
    watcher.over.set()


@pytest.mark.parametrize("system", [4], indirect=True)
def test_redis_is_flushed_in_the_middle_of_500_jobs(system):
    s = system
    person = Load(s, people=1, seed=3, pictures=500).people[0]
    answer = person.post(f"/api/projects/{person.home['id']}/segmentation",
                         {"model": "test-quick", "imageIds": [image["id"] for image in person.images]})
    assert answer.status == 202 and answer.json["accepted"] == 500, answer
    s.redis_cli("FLUSHALL")
    left = s.sql("SELECT count(*) FROM jobs WHERE state <> 'completed'")[0][0]
    assert left > 200
    wait_until(lambda: s.sql("SELECT count(*) FROM jobs WHERE state IN ('queued', 'active', 'delayed')") == [(0,)], 300, "the end of all")
    assert s.sql("SELECT state, count(*) FROM jobs GROUP BY 1") == [("completed", 500)]
    assert s.sql("SELECT count(*), count(DISTINCT image_id) FROM segmentations") == [(500, 500)]
    print(f"flushed with {left} of 500 jobs unfinished: all completed, once")
