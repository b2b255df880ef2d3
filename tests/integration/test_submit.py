"""Requests for segmentation that are written together: each gets its own answer, whatever the others of its group meet,
and whatever dies in the middle."""
import contextlib
import signal
import sys
import threading
import time
import uuid

import pathlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "chaos"))

import psycopg2  # noqa: E402
import pytest  # noqa: E402
from api import Client  # noqa: E402
from harness import wait_until  # noqa: E402
from proxy import Proxy  # noqa: E402


class Lab:
    """A gateway without workers, people, and images that are rows only."""

    def __init__(self, stack):
        self.stack = stack

    def start(self, people=1):
        s = self.stack
        for part in (s.start_postgres, s.start_redis, s.start_gateway):
            part()
        s.sql("INSERT INTO models (name, version, title, description, sha256, manifest) VALUES "
              "('nuclei', '1', 'n', 'n', '-', '{}'), ('other', '1', 'o', 'o', '-', '{}')")
        self.people = [Client(s).register() for _ in range(people)]
        self.projects = [p.project() for p in self.people]
        return self

    def images(self, n, person=0):
        return [str(r[0]) for r in self.stack.sql(
            "INSERT INTO images (project_id, name, format, byte_size, sha256, storage_key, width, height, bit_depth, "
            "channels) SELECT %s, 'i' || i, 'png', 1, sha256('x'), 'k' || i, 1, 1, 8, 1 FROM generate_series(1, %s) i "
            "RETURNING id", self.projects[person]["id"], n)]

    def submit(self, person, image, body=None, key=None):
        headers = {"Idempotency-Key": key} if key else {}
        return self.people[person].post(f"/api/images/{image}/segmentation", body or {}, headers=headers)

    def connect(self):
        s = self.stack
        return psycopg2.connect(host="127.0.0.1", port=s.pg_port, user="spheroseg", password=s.pg_password,
                                dbname="postgres")

    @contextlib.contextmanager
    def nobody_writes(self):
        """While this holds no job can be written, so requests pile up and go as groups when it ends."""
        with contextlib.closing(self.connect()) as db, db.cursor() as cursor:
            cursor.execute("LOCK TABLE jobs IN SHARE MODE")
            yield
            with contextlib.suppress(psycopg2.OperationalError):  # the database may have died meanwhile
                db.rollback()

    def together(self, calls, meanwhile=None):
        """Makes the calls at once, so that nearly all of them wait for the same group; their answers or exceptions."""
        answers = [None] * len(calls)

        def one(i):
            try:
                answers[i] = self.submit(*calls[i])
            except OSError as e:
                answers[i] = e
        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(calls))]
        with self.nobody_writes():
            for t in threads:
                t.start()
            wait_until(lambda: self.stack.sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = "
                                              "'jobs'::regclass")[0][0] >= 1, 10, "a leader that waits")
            wait_until(lambda: self.connections() + sum(a is not None for a in answers) >= len(calls), 20,
                       "all the others")
            if meanwhile:
                meanwhile()
        for t in threads:
            t.join(60)
        return answers

    def connections(self):
        """Open ones of the gateway's TLS port."""
        text = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
        port = f":{self.stack.https_port:04X}"
        return sum(1 for line in text if line.split()[1].endswith(port) and line.split()[3] == "01")

    def waiting(self):
        """Ids in Redis's lists, twice when they are there twice."""
        keys = self.stack.redis_cli("KEYS", "sg:q:*").split()
        return sorted(i for k in keys for i in self.stack.redis_cli("LRANGE", k, 0, -1).split())

    def rows(self):
        return sorted(str(r[0]) for r in self.stack.sql("SELECT id FROM jobs WHERE state = 'queued'"))


@pytest.fixture
def lab(own_stack):
    def make(people=1, start=True, **env):
        made = Lab(own_stack(start=False, workers=0, env=env))
        return made.start(people) if start else made
    return make


def test_everybody_in_a_group_gets_an_answer_of_their_own(lab):
    x = lab(people=3)
    own = [x.images(12, person) for person in range(3)]
    for person in range(3):  # the bounds are known from here on, so that what follows goes in groups
        x.submit(person, x.images(1, person)[0])
    calls = [(p, i) for p in range(3) for i in own[p][:8]]                       # 24 that are all right
    calls += [(0, own[1][9]), (2, own[0][9]), (1, str(uuid.uuid4()))]            # 3 that are not theirs, or not there
    calls += [(0, own[0][10]), (0, own[0][10]), (0, own[0][10])]                 # one image three times
    calls += [(1, own[1][10], {"model": "nothing"}), (1, own[1][11], {"model": "other", "priority": 9})]
    answers = x.together(calls)
    assert [a.status for a in answers[:24]] == [202] * 24
    assert not any(a.json["existing"] for a in answers[:24])
    assert [(a.status, a.code) for a in answers[24:27]] == [(404, "not_found")] * 3
    thrice = [a.json for a in answers[27:30]]
    assert len({a["jobId"] for a in thrice}) == 1 and sorted(a["existing"] for a in thrice) == [False, True, True]
    assert (answers[30].status, answers[30].code) == (422, "model_unknown")
    assert answers[31].status == 202
    assert x.stack.sql("SELECT model, priority, user_id::text FROM jobs WHERE id = %s", answers[31].json["jobId"]) == \
        [("other", 9, x.people[1].user["id"])]
    # each row is its own request's: image, owner, latest job
    for call, a in zip(calls[:24], answers[:24]):
        assert a.json["imageId"] == call[1]
        assert a.headers["Location"] == f"/api/segmentation/job/{a.json['jobId']}"
        assert x.people[call[0]].get(f"/api/segmentation/job/{a.json['jobId']}").json["imageId"] == call[1]
        assert str(x.stack.sql("SELECT latest_job_id FROM images WHERE id = %s", call[1])[0][0]) == a.json["jobId"]
    assert len(x.rows()) == 3 + 24 + 1 + 1 and x.waiting() == x.rows()
    # they did go together: a transaction has one time
    assert x.stack.sql("SELECT count(DISTINCT created_at) FROM jobs")[0][0] < 3 + 12
    positions = [a.json["position"] for a in answers[:24]]
    assert min(positions) >= 0 and max(positions) < 29 and len(set(positions)) > 12


def test_keys_in_a_group(lab):
    x = lab()
    x.submit(0, x.images(1)[0])
    images = x.images(10)
    odd = 'k"{},\\x'
    calls = [(0, i, {}, f"key-{n}") for n, i in enumerate(images[:5])]
    calls += [(0, images[5], {}, odd)] * 4             # one request four times
    calls += [(0, images[6], {}, "key-0")]             # a key of another request
    calls += [(0, images[7], {}, "key 8")]             # none at all
    answers = x.together(calls)
    assert [a.status for a in answers[:5]] in ([202] * 5, [409] + [202] * 4)
    four = answers[5:9]
    assert [a.status for a in four] == [202] * 4 and len({a.json["jobId"] for a in four}) == 1
    assert sorted(a.headers.get("Idempotency-Replayed", "") for a in four) == ["", "true", "true", "true"]
    assert not any(a.json["existing"] for a in four)
    reused = [answers[0], answers[9]]                  # one of the two was first
    assert sorted(a.status for a in reused) == [202, 409]
    assert [a.code for a in reused if a.status == 409] == ["idempotency_key_reused"]
    assert (answers[10].status, answers[10].code) == (400, "idempotency_key_invalid")
    again = x.submit(0, images[5], {}, odd)
    assert again.status == 202 and again.json["jobId"] == four[0].json["jobId"]
    assert again.headers["Location"].endswith(again.json["jobId"])
    assert len(x.rows()) == 1 + 6 and x.waiting() == x.rows()
    # a request that was refused leaves its key free
    assert x.submit(0, str(uuid.uuid4()), {}, "free").status == 404
    assert x.submit(0, images[8], {}, "free").status == 202


def test_a_locked_image_holds_up_nobody_else(lab):
    x = lab()
    x.submit(0, x.images(1)[0])
    images = x.images(9)
    with contextlib.closing(x.connect()) as db, db.cursor() as cursor:
        cursor.execute("SELECT 1 FROM images WHERE id = %s FOR UPDATE", (images[4],))  # as a deletion would
        late = []
        locked = threading.Thread(target=lambda: late.append(x.submit(0, images[4])))
        answers = []
        others = threading.Thread(target=lambda: answers.extend(
            x.together([(0, i) for i in images if i != images[4]], meanwhile=lambda: (locked.start(), time.sleep(0.3)))))
        others.start()
        others.join(20)
        assert [a.status for a in answers] == [202] * 8 and not late
        db.rollback()
    locked.join(20)
    assert late[0].status == 202 and x.waiting() == x.rows()


def test_a_batch_and_single_requests_for_its_images(lab):
    x = lab()
    x.submit(0, x.images(1)[0])
    images = x.images(20)
    batch = []

    def whole_project():
        batch.append(x.people[0].post(f"/api/projects/{x.projects[0]['id']}/segmentation", {"all": True}))
    thread = threading.Thread(target=whole_project)
    answers = x.together([(0, i) for i in images[:8]], meanwhile=lambda: (thread.start(), time.sleep(0.3)))
    thread.join(20)
    assert [a.status for a in answers] == [202] * 8 and batch[0].status == 202
    assert len(x.rows()) == 1 + 20
    assert x.stack.sql("SELECT count(DISTINCT image_id) FROM jobs") == [(21,)]
    for image, a in zip(images, answers):
        assert x.stack.sql("SELECT id::text FROM jobs WHERE image_id = %s", image) == [(a.json["jobId"],)]
    wait_until(lambda: x.waiting() == x.rows(), 10, "each job being in Redis once")


def test_the_database_dies_under_a_group(lab):
    x = lab(people=2)
    images = [x.images(12, p) for p in range(2)]
    for p in range(2):
        x.submit(p, x.images(1, p)[0])
    calls = [(p, i) for p in range(2) for i in images[p]]
    answers = x.together(calls, meanwhile=lambda: x.stack.postgres.stop(signal.SIGQUIT))
    assert [(a.status, a.code) for a in answers] == [(503, "database_unavailable")] * 24
    assert all(int(a.headers["Retry-After"]) > 0 for a in answers)
    x.stack.start_postgres()
    wait_until(lambda: x.submit(*calls[0]).status == 202, 20, "the database to be found again")
    again = [x.submit(*c) for c in calls]
    assert [a.status for a in again] == [202] * 24
    assert len(x.rows()) == 26
    assert x.stack.sql("SELECT count(*) FROM (SELECT 1 FROM jobs GROUP BY image_id HAVING count(*) > 1) d") == [(0,)]
    wait_until(lambda: x.waiting() == x.rows(), 10, "each job being in Redis once")


def test_the_bound_of_one_person_is_not_the_others(lab):
    x = lab(people=2, MAX_QUEUED_PER_USER="5")
    for image in x.images(5):
        assert x.submit(0, image).status == 202
    answers = x.together([(p, i) for p in range(2) for i in x.images(3, p)])
    assert [(a.status, a.code) for a in answers[:3]] == [(429, "queue_full_user")] * 3
    assert all(int(a.headers["Retry-After"]) > 0 for a in answers[:3])
    assert [a.status for a in answers[3:]] == [202] * 3
    # who has an unfinished job is told of it even so
    image = str(x.stack.sql("SELECT image_id FROM jobs WHERE user_id = %s LIMIT 1", x.people[0].user["id"])[0][0])
    assert x.submit(0, image).json["existing"]


@pytest.fixture
def half_way(lab):
    """A gateway that was killed after the commit of a job and before its push: (lab, image, key)."""
    proxy = Proxy()
    x = lab(start=False, REDIS_TIMEOUT="60000")
    s = x.stack
    s.env["REDIS_URL"] = f"redis://:{s.redis_password}@127.0.0.1:{proxy.link('redis', s.redis_port)}/0"
    try:
        x.start()
        x.submit(0, x.images(1)[0])
        image = x.images(1)[0]
        proxy.set("redis", frozen=True)

        def lost():
            with contextlib.suppress(OSError):
                x.submit(0, image, {}, "half-way")
        thread = threading.Thread(target=lost)
        thread.start()
        wait_until(lambda: s.sql("SELECT 1 FROM jobs WHERE image_id = %s", image), 10, "the commit")
        s.gateway.stop(signal.SIGKILL)
        thread.join()
        proxy.popen.kill()  # what was on its way is lost
        proxy.popen.wait()
        del s.env["REDIS_URL"]
        # no audit helps
        s.redis_cli("SET", "sg:audit", "nobody", "PX", 600000)
        assert len(x.rows()) == 2 and len(x.waiting()) == 1
        s.gateway = None
        yield x, image, "half-way"
    finally:
        if proxy.popen.poll() is None:
            proxy.stop()


def test_a_repeat_after_a_kill_gets_the_real_answer_at_once(half_way):
    x, image, key = half_way
    x.stack.start_gateway()
    answer = x.submit(0, image, {}, key)
    job = str(x.stack.sql("SELECT id FROM jobs WHERE image_id = %s", image)[0][0])
    assert answer.status == 202 and answer.headers["Idempotency-Replayed"] == "true"
    assert answer.json == {"jobId": job, "imageId": image, "state": "queued", "position": None, "existing": False}


def test_a_job_whose_push_was_killed_waits_for_no_audit(half_way):
    x, _image, _key = half_way
    x.stack.start_gateway()
    began = time.monotonic()
    wait_until(lambda: x.waiting() == x.rows(), 6, "the job being in Redis")
    print(f"in Redis {time.monotonic() - began:.1f} s after the start")
    assert x.stack.redis_cli("EXISTS", "sg:audit") == "1"
    assert x.stack.metric(x.stack.metrics_port, "spheroseg_queue_relisted_total") == 1
