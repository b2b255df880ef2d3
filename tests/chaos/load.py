"""People who use the system while it is being broken: they upload, segment, cancel, retry and delete over HTTPS.

A request is repeated under its Idempotency-Key until it is answered, at whichever gateway answers. What was accepted
(202) and what a person took back is noted here; verify.py compares it with the database.
"""
import collections
import http.client
import random
import threading
import time
import uuid

import images
from api import Client

PATIENCE = 90       # s until a person gives up on a request: a finding


class Ledger:
    """What the people know, shared by all of them."""

    def __init__(self):
        self.lock = threading.Lock()
        self.accepted = {}                    # job -> image
        self.batches = {}                     # batch -> number accepted
        self.taken_back = set()               # jobs that somebody asked to cancel
        self.cancelled_projects = set()       # projects whose jobs somebody asked to cancel, all of them
        self.deleted = set()                  # images that somebody asked to delete
        self.counts = collections.Counter()   # requests by kind, repeats, answers
        self.surprises = []                   # answers that nobody should get
        self.errors = []                      # people who gave up

    def count(self, what, n=1):
        with self.lock:
            self.counts[what] += n


class Person(Client):
    def __init__(self, stack, gateways, ledger, seed):
        super().__init__(stack)
        self.whole = stack
        self.gateways, self.ledger, self.random = gateways, ledger, random.Random(seed)
        self.door = self.random.choice(gateways)
        self.images, self.jobs = [], collections.deque(maxlen=300)

    def call(self, method, path, body=None, headers=None, timeout=5, **kw):
        """One request, repeated while the answer is that there is none just now."""
        headers = dict(headers or {})
        if method == "POST":
            headers["Idempotency-Key"] = uuid.uuid4().hex
        end = time.monotonic() + PATIENCE
        tried = 0
        while time.monotonic() < end:
            tried += 1
            self.stack = Door(self.whole, self.door.https_port)
            try:
                answer = super().call(method, path, body=body, headers=headers, timeout=timeout, **kw)
            except (OSError, http.client.HTTPException):
                self.ledger.count("no answer")
                self.door = self.random.choice(self.gateways)
                time.sleep(0.1)
                continue
            if answer.status == 401 and path != "/api/auth/login" and self.token:
                self.ledger.count("signed in again")   # its clock jumped past the token's end
                self.token = None
                signed_in = self.call("POST", "/api/auth/login", {"email": self.email, "password": self.password})
                self.token = signed_in.json["accessToken"]
                continue
            if answer.status in (429, 503) or (answer.status == 409 and answer.code == "idempotency_in_progress"):
                self.ledger.count(f"answer {answer.status}")
                self.door = self.random.choice(self.gateways)
                time.sleep(0.2)
                if answer.status == 409 and tried > 5:
                    headers["Idempotency-Key"] = uuid.uuid4().hex  # its gateway died at it: ask anew
                continue
            if answer.status >= 500 or answer.status == 400:
                with self.ledger.lock:
                    self.ledger.surprises.append(f"{method} {path}: {answer}")
            return answer
        raise TimeoutError(f"{method} {path} was not answered for {PATIENCE} s")

    # ---- what people do ----

    def settle(self, pictures):
        self.register(f"{uuid.uuid4().hex[:12]}@example.org")
        self.home = self.project("Chaos")
        for n, data in enumerate(pictures):
            self.add_image(data, f"{n}.png")
        return self

    def add_image(self, data, name):
        answer = self.upload(self.home, data, name)
        assert answer.status == 201, answer
        self.images.append(answer.json)

    def wish(self):
        model = self.random.choices(["test-quick", "test-slow", "test-failing"], [70, 20, 10])[0]
        return {"model": model, "priority": self.random.randint(1, 10)}

    def segment_one(self):
        image = self.random.choice(self.images)
        answer = self.post(f"/api/images/{image['id']}/segmentation", self.wish())
        if answer.status == 202:
            self.keep([(answer.json["jobId"], image["id"])])

    def keep(self, pairs):
        with self.ledger.lock:
            self.ledger.accepted.update(pairs)
        self.jobs.extend(job for job, _ in pairs)

    def segment_some(self):
        some = self.random.sample(self.images, min(4, len(self.images)))
        answer = self.post(f"/api/projects/{self.home['id']}/segmentation", {**self.wish(), "imageIds": [i["id"] for i in some]})
        if answer.status == 202:
            with self.ledger.lock:
                self.ledger.batches[answer.json["batchId"]] = answer.json["accepted"]

    def cancel_one(self):
        if self.jobs:
            job = self.random.choice(list(self.jobs)[-12:])
            with self.ledger.lock:
                self.ledger.taken_back.add(job)
            self.ledger.count(f"cancel {self.delete(f'/api/segmentation/job/{job}').status}")

    def cancel_all(self):
        with self.ledger.lock:
            self.ledger.cancelled_projects.add(self.home["id"])
        self.post(f"/api/projects/{self.home['id']}/segmentation/cancel")

    def retry_one(self):
        for job in self.random.sample(list(self.jobs), min(10, len(self.jobs))):
            if self.get(f"/api/segmentation/job/{job}").json.get("state") in ("failed", "cancelled"):
                self.ledger.count(f"retry {self.post(f'/api/segmentation/job/{job}/retry').status}")
                return

    def retry_failed(self):
        self.post(f"/api/projects/{self.home['id']}/segmentation/retry-failed")

    def look(self):
        self.get("/api/segmentation/queue/status")
        self.get(f"/api/segmentation/jobs?limit=20&projectId={self.home['id']}")
        self.polygons(self.random.choice(self.images))

    def replace(self):
        """Deletes an image, perhaps while it is worked on, and uploads another."""
        image = self.images.pop(self.random.randrange(len(self.images)))
        with self.ledger.lock:
            self.ledger.deleted.add(image["id"])
        self.delete(f"/api/images/{image['id']}")
        self.add_image(picture(self.random.randrange(1000)), "again.png")

    def act(self):
        what = self.random.choices(
            [self.segment_one, self.segment_some, self.cancel_one, self.cancel_all, self.retry_one, self.retry_failed,
             self.look, self.replace], [60, 6, 10, 0.3, 4, 1, 5, 1.5])[0]
        self.ledger.count(what.__name__.replace("_", " "))
        what()


class Door:
    """What Client needs to know of a stack, at the gateway that it uses now."""

    def __init__(self, stack, https_port):
        self.dir, self.https_port = stack.dir, https_port


_pictures = {}


def picture(seed):
    if seed % 8 not in _pictures:
        _pictures[seed % 8] = images.png(images.nuclei(seed=seed % 8, count=12 + seed % 8)[0])
    return _pictures[seed % 8]


class Load:
    """Some people at once, held back so that at most `backlog` jobs wait."""

    def __init__(self, stack, people, seed, backlog=6, pictures=30):
        self.stack, self.backlog, self.ledger = stack, backlog, Ledger()
        self.stopping = threading.Event()
        self.hold = threading.Event()
        self.people = []
        for n in range(people):
            person = Person(stack, stack.gateways, self.ledger, seed * 1000 + n)
            self.people.append(person.settle([picture(k) for k in range(pictures)]))
        self.threads = [threading.Thread(target=self.run, args=(p,), name=p.email, daemon=True) for p in self.people]

    def start(self):
        for thread in self.threads:
            thread.start()

    def run(self, person):
        while not self.stopping.is_set():
            if self.hold.is_set():
                time.sleep(0.02)
                continue
            try:
                person.act()
            except Exception as e:
                with self.ledger.lock:
                    self.ledger.errors.append(f"{type(e).__name__}: {e}")

    def watch(self, waiting):
        """Called now and then with the number of unfinished jobs."""
        (self.hold.set if waiting > self.backlog else self.hold.clear)()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(PATIENCE + 30)
        return all(not thread.is_alive() for thread in self.threads)
