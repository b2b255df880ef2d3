"""Property test of proto/lua: random interleavings of all scripts against a private Redis, compared after each step with a
reference model that knows the rules of proto/jobs.md and nothing of the keys.

The reference keeps for each job one word (absent, waiting, held, gone) and what goes with it; everything that Redis stores
twice (counts, rings, index of processing lists, wake-up tokens) is derived and must agree. Time is moved by leases that
are over at once, so that no step depends on the clock.

LUA_STEPS  steps in all (20000)      LUA_SEED  seed of the first round (random; printed)
"""
import collections
import contextlib
import os
import pathlib
import random
import shutil
import socket
import subprocess
import tempfile
import time

import pytest

LUA = pathlib.Path(__file__).resolve().parents[2] / "proto/lua"
STEPS = int(os.environ.get("LUA_STEPS", "20000"))
SEED = int(os.environ.get("LUA_SEED", "0")) or random.SystemRandom().randrange(1, 2 ** 31)
ROUND = 2500  # steps of one round; each begins with an empty Redis

MODELS = ("spheroid", "nuclei", "cells")
PRIORITIES = (1, 5, 6, 10)
USERS = ("ann", "ben", "cyd", "dan", "eve")
WORKERS = tuple(f"host-{i}" for i in range(6))
SWEEPERS = ("sweeper-a", "sweeper-b")
LONG, OVER = 3600000, 0  # a lease that outlives the test, and one that is over when the next command runs


# ---- Redis ----

class Redis:
    """As much of a client as the test needs: RESP2, one command at a time, scripts by their hash."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", buffering=1 << 16)
        self.sha = {}

    def close(self):
        self.file.close()
        self.socket.close()

    def __call__(self, *args):
        parts = [b"*%d\r\n" % len(args)]
        for a in args:
            raw = a if isinstance(a, bytes) else str(a).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
        self.socket.sendall(b"".join(parts))
        return self._reply()

    def _reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]
        raise RuntimeError(f"unexpected reply {line!r}")

    def load(self, name, text):
        self.sha[name] = self("SCRIPT", "LOAD", text)

    def run(self, name, keys, *args):
        return self("EVALSHA", self.sha[name], len(keys), *keys, *args)


# Everything in Redis, in one command. Reading is all it does.
DUMP = """
local all = {}
for _, key in ipairs(redis.call('KEYS', 'sg:*')) do
    local kind = redis.call('TYPE', key).ok
    local value
    if kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'hash' then value = redis.call('HGETALL', key)
    elseif kind == 'set' then value = redis.call('SMEMBERS', key)
    elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    else value = {redis.call('GET', key)} end
    all[#all + 1] = {key, value}
end
local now = redis.call('TIME')
return {all, now[1] * 1000 + math.floor(now[2] / 1000)}
"""


@pytest.fixture(scope="module")
def redis():
    program = os.environ.get("SPHEROSEG_REDIS_SERVER") or "redis-server"
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    folder = tempfile.mkdtemp(prefix="spheroseg-lua-")
    with contextlib.closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen([program, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", "",
                               "--appendonly", "no"], stdout=subprocess.DEVNULL)
    client = None
    try:
        for _ in range(200):
            try:
                client = Redis(port)
                client("PING")
                break
            except (OSError, RuntimeError):
                time.sleep(0.05)
        assert client, "Redis did not start"
        for script in LUA.glob("*.lua"):
            client.load(script.stem, script.read_text())
        client.load("dump", DUMP)
        yield client
    finally:
        if client:
            client.close()
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


# ---- the reference ----

class Job:
    def __init__(self, number, rng):
        self.id = f"{number:08x}-0000-4000-8000-000000000000"
        self.model, self.priority, self.user = rng.choice(MODELS), rng.choice(PRIORITIES), rng.choice(USERS)
        self.forget()

    def forget(self):
        self.state = "absent"   # absent | waiting | held | gone
        self.holder = None      # while held
        self.lease = None       # None | LONG | OVER, while held
        self.lost = None        # who lost it, while a sweeper holds it
        self.cancel = False
        self.at = None          # when it began to wait, by Redis's clock
        self.notes = None       # progress, stage, seq

    def become(self, state, **more):
        self.forget()
        self.state = state
        self.__dict__.update(more)

    @property
    def place(self):
        return self.model, self.priority


class Breaker:
    """A circuit breaker: open while `until` is LONG, half open when it is OVER."""

    def __init__(self):
        self.until, self.probe, self.outcomes, self.known = None, None, [], False


class Reference:
    """The rules. Queues hold jobs, next one first; turns hold users, next one first."""

    def __init__(self, jobs):
        self.jobs = jobs
        self.wipe()

    def wipe(self):
        for j in self.jobs:
            j.forget()
        self.queues = collections.defaultdict(list)  # (model, priority, user)
        self.turns = collections.defaultdict(list)   # (model, priority)
        self.claims = collections.Counter()          # by model
        self.paused = set()
        self.breakers = {m: Breaker() for m in MODELS}
        self.registry = {}

    def waiting(self, model):
        return [j for (m, _, _), q in self.queues.items() if m == model for j in q]

    def _wait(self, job, front):
        job.become("waiting")
        queue = self.queues[(*job.place, job.user)]
        queue.insert(0 if front else len(queue), job)
        if job.user not in self.turns[job.place]:
            self.turns[job.place].append(job.user)

    def _leave(self, job):
        queue = self.queues[(*job.place, job.user)]
        queue.remove(job)
        if not queue:
            self.turns[job.place].remove(job.user)

    def enqueue(self, jobs, front):
        replies = []
        for j in jobs:
            if j.state == "held" and j.lease is not None:
                replies.append(-1)
            elif j.state == "waiting":
                replies.append(0)
            else:
                self._wait(j, front)
                replies.append(1)
        return replies

    def _head(self, model, priority):
        turns = self.turns[(model, priority)]
        return self.queues[(model, priority, turns[0])][0] if turns else None

    def runs(self, model):
        """Whether jobs of the model may be claimed: 'yes', 'no', or 'probe' (one of them)."""
        b = self.breakers[model]
        if model in self.paused or b.until == LONG or (b.probe and b.probe.state == "held" and b.probe.lease is not None):
            return "no"
        return "yes" if b.until is None else "probe"

    def claim(self, worker, most, models, lease, age_now, every):
        """age_now: whether a wait of any length counts as long enough."""
        models = [m for m in models if self.runs(m) != "no"]
        got = []
        while len(got) < most:
            heads = [h for p in range(10, 0, -1) for m in models if (h := self._head(m, p))]
            if not heads:
                break
            top = max(h.priority for h in heads)
            job = min((h for h in heads if h.priority == top), key=lambda h: h.at)  # min keeps the first of equals
            self.claims[job.model] += 1
            if self.claims[job.model] % every == 0 and age_now:
                job = min(heads, key=lambda h: h.at)
            self._leave(job)
            turns = self.turns[job.place]
            if job.user in turns:
                turns.remove(job.user)
                turns.append(job.user)
            probe = self.runs(job.model) == "probe"
            job.become("held", holder=worker, lease=lease)
            if probe:
                self.breakers[job.model].probe = job
                models.remove(job.model)
            got.append(job)
        return got

    def outcome(self, model, job, good, opens_for, threshold, least):
        b = self.breakers[model]
        b.known = True
        b.outcomes.append(good)
        if b.until == LONG:
            return "open"
        if b.until == OVER:
            if b.probe is not job:
                return "half_open"
            b.probe = None
            if good:
                b.until, b.outcomes = None, []
                return "recovered"
            b.until = opens_for
            return "reopened"
        failed = b.outcomes.count(False)
        if not good and len(b.outcomes) >= least and 100 * failed >= threshold * len(b.outcomes):
            b.until, b.probe = opens_for, None
            return "opened"
        return "closed"

    def renew(self, worker, jobs, lease):
        replies = []
        for j in jobs:
            if j.state == "absent":
                j.become("held", holder=worker, lease=lease)
                replies.append(1)
            elif j.state == "held" and j.holder == worker:
                j.lease = lease
                replies.append(2 if j.cancel else 1)
            else:
                replies.append(0)
        self.registry[worker] = True
        return replies

    def release(self, worker, job, how):
        if job.state != "absent" and not (job.state == "held" and job.holder == worker):
            return 0
        if how == "drop":
            job.become("gone")
        else:
            self._wait(job, how == "front")
        return 1

    def remove(self, job):
        if job.state != "waiting":
            return 0
        self._leave(job)
        job.forget()
        return 1

    def cancel(self, job):
        if job.state != "absent":
            job.cancel = True

    def recoverable(self):
        return {j for j in self.jobs if j.state == "held" and j.lease != LONG}

    def take(self, sweeper, job, lease):
        lost = job.lost or job.holder
        job.holder, job.lost, job.lease = sweeper, lost, lease
        return lost

    def restore(self, pairs, lease):
        made = 0
        for j, worker in pairs:
            if j.state in ("absent", "gone") or (j.state == "held" and j.holder == worker and j.lease is None):
                if j.state != "held":
                    cancel = j.cancel
                    j.become("held", holder=worker, cancel=cancel)
                j.lease = lease
                made += 1
        return made

    def progress(self, worker, job, notes):
        if job.state == "absent":
            return 1
        if job.state != "held" or job.holder != worker:
            return 0
        job.notes = notes
        return 1

    def position(self, job):
        """Plays the rest out by rules 1 to 3: greater priorities, then turns of one job each."""
        if job.state != "waiting":
            return -1
        ahead = sum(1 for j in self.waiting(job.model) if j.priority > job.priority)
        turns = list(self.turns[job.place])
        queues = {u: list(self.queues[(*job.place, u)]) for u in turns}
        while True:
            user = turns.pop(0)
            if queues[user].pop(0) is job:
                return ahead
            ahead += 1
            if queues[user]:
                turns.append(user)


# ---- one round ----

class Round:
    def __init__(self, redis, seed):
        self.redis, self.rng, self.seed = redis, random.Random(seed), seed
        self.jobs = [Job(i, self.rng) for i in range(48)]
        self.by_id = {j.id: j for j in self.jobs}
        self.ref = Reference(self.jobs)
        self.log = collections.deque(maxlen=25)
        self.believed = collections.defaultdict(set)  # worker -> jobs it thinks it holds, also after it lost them
        self.asleep = set()
        self.counts = collections.Counter()
        redis("FLUSHALL")

    # -- steps: each runs one script and returns (reply, what the rules say) --

    def some(self, jobs, most):
        jobs = list(jobs)
        return self.rng.sample(jobs, min(len(jobs), self.rng.randint(1, most)))

    def lease(self):
        return OVER if self.rng.random() < 0.2 else LONG

    def a_claim(self):
        """A worker and a job that it may believe to be its own."""
        worker = self.rng.choice(WORKERS + SWEEPERS)
        mine = sorted(self.believed[worker], key=lambda j: j.id)
        return worker, self.rng.choice(mine) if mine and self.rng.random() < 0.85 else self.rng.choice(self.jobs)

    def step_enqueue(self):
        jobs, front = self.some(self.jobs, 5), self.rng.random() < 0.2
        args = [x for j in jobs for x in (j.id, j.model, j.priority, j.user)]
        return (self.redis.run("enqueue", ["sg:lease"], "front" if front else "back", *args), self.ref.enqueue(jobs, front))

    def step_claim(self):
        worker, models, lease = self.rng.choice(WORKERS), self.some(MODELS, 3), self.lease()
        age_now, every, most = self.rng.random() < 0.5, self.rng.choice((1, 2, 8)), self.rng.choice((1, 1, 1, 2, 5))
        reply = self.redis.run("claim", [f"sg:proc:{worker}", "sg:procs", "sg:lease"], worker, lease,
                               0 if age_now else LONG, every, most, *models)
        jobs = self.ref.claim(worker, most, models, lease, age_now, every)
        self.believed[worker] |= set(jobs)
        return reply, [x for j in jobs for x in (j.id, j.model, j.priority, j.user)] or None

    def step_breaker(self):
        model, good, opens_for = self.rng.choice(MODELS), self.rng.random() < 0.5, self.lease()
        b = self.ref.breakers[model]
        job = b.probe if b.probe and self.rng.random() < 0.7 else self.rng.choice(self.jobs)
        reply = self.redis.run("breaker", [f"sg:breaker:{model}", f"sg:outcomes:{model}"], model, job.id, int(good), 60, 4,
                               LONG, opens_for, 1000)
        return reply, self.ref.outcome(model, job, good, opens_for, 60, 4)

    def step_pause(self):
        model = self.rng.choice(MODELS)
        if model in self.ref.paused:
            self.ref.paused.discard(model)
            return self.redis("SREM", "sg:paused", model), 1
        self.ref.paused.add(model)
        return self.redis("SADD", "sg:paused", model), 1

    def step_renew(self):
        worker, lease = self.rng.choice(WORKERS), self.lease()
        jobs = sorted(self.believed[worker], key=lambda j: j.id)
        if self.rng.random() < 0.1:
            jobs += [j for j in self.some(self.jobs, 2) if j not in jobs]
        reply = self.redis.run("renew", [f"sg:proc:{worker}", "sg:procs", "sg:lease", "sg:workers"], worker, lease,
                               self.rng.choice(("{}", '{"host":"a"} ')), *(j.id for j in jobs))
        want = self.ref.renew(worker, jobs, lease)
        for j, r in zip(jobs, want):
            if r == 0 and self.rng.random() < 0.7:  # some go on for a while
                self.believed[worker].discard(j)
        return reply, want

    def step_release(self):
        worker, job = self.a_claim()
        how = self.rng.choice(("drop", "drop", "front", "back"))
        self.believed[worker].discard(job)
        return (self.redis.run("release", [f"sg:proc:{worker}", "sg:procs", "sg:lease"], worker, job.id, how, job.model,
                               job.priority, job.user), self.ref.release(worker, job, how))

    def step_remove(self):
        job = self.rng.choice(self.jobs)
        return self.redis.run("remove", [f"sg:job:{job.id}"], job.id), self.ref.remove(job)

    def step_cancel(self):
        job = self.rng.choice(self.jobs)
        self.ref.cancel(job)
        return self.redis.run("cancel", [f"sg:job:{job.id}"], job.id), 0  # nobody listens here

    def step_recover(self):
        sweeper, lease, limit = self.rng.choice(SWEEPERS), self.lease(), self.rng.choice((1, 2, 200))
        # a lease that is over at once could be taken a second time by the second loop of the same call, which is
        # harmless but not what the reply is compared with
        reply = self.redis.run("recover", ["sg:lease", "sg:procs", "sg:workers"], sweeper, LONG if limit < 200 else lease,
                               limit, LONG)
        lease = LONG if limit < 200 else lease
        pairs = dict(zip(reply[::2], reply[1::2]))
        due = self.ref.recoverable()
        taken = {self.by_id[i] for i in pairs}
        assert taken <= due, "took a job whose lease is valid"
        assert len(taken) >= min(limit, len(due)), "left jobs whose lease has run out"
        want = {j.id: self.ref.take(sweeper, j, lease) for j in taken}
        self.believed[sweeper] |= taken
        return pairs, want

    def step_restore(self):
        lease = self.lease()
        pairs = [(j, self.rng.choice([w for w in WORKERS if j in self.believed[w]] or WORKERS))
                 for j in self.some(self.jobs, 4)]
        return (self.redis.run("restore", ["sg:lease", "sg:procs"], lease, *(x for j, w in pairs for x in (j.id, w))),
                self.ref.restore(pairs, lease))

    def step_progress(self):
        worker, job = self.a_claim()
        notes = (f"{self.rng.random():.4f}", self.rng.choice(("decode", "infer")), str(self.rng.randrange(1 << 40)))
        return self.redis.run("progress", [f"sg:job:{job.id}"], worker, *notes), self.ref.progress(worker, job, notes)

    def step_position(self):
        waiting = [j for j in self.jobs if j.state == "waiting"]
        job = self.rng.choice(waiting if waiting and self.rng.random() < 0.9 else self.jobs)
        return self.redis.run("position", [f"sg:job:{job.id}"], job.id), self.ref.position(job)

    def step_flush(self):
        """Redis loses everything, or its lease index."""
        if self.rng.random() < 0.5:
            self.redis("FLUSHALL")
            self.ref.wipe()
        else:
            self.redis("DEL", "sg:lease")
            for j in self.jobs:
                j.lease = None
        return None, None

    WEIGHTS = {"enqueue": 22, "claim": 22, "renew": 14, "release": 14, "remove": 4, "cancel": 4, "recover": 7,
               "restore": 5, "progress": 5, "position": 6, "breaker": 4, "pause": 0.5, "flush": 0.25}

    # -- what must hold after each step --

    def look(self):
        """All that is in Redis: {kind: {rest of the key: value}}."""
        keys, now = self.redis.run("dump", [])
        seen = {k: {} for k in ("q", "ring", "count", "tick", "proc", "procs", "lease", "job", "wake", "workers", "breaker",
                                  "outcomes", "paused")}
        for key, value in keys:
            kind, _, rest = key[3:].partition(":")
            if kind in ("count", "tick", "job", "workers", "lease", "breaker", "outcomes"):
                value = dict(zip(value[::2], value[1::2]))
            seen[kind][rest] = value
        return seen, now

    def learn_times(self, seen, now):
        """The reference does not know Redis's clock: when a job began to wait is read once, and must then stay."""
        for j in self.jobs:
            if j.state == "waiting" and j.at is None:
                j.at = int(seen["job"][j.id]["at"])
                assert self.started <= j.at <= now, "waits since a time that never was"

    def check(self):
        seen, now = self.look()
        self.learn_times(seen, now)
        self.check_places(seen)
        self.check_reference(seen, now)

    def check_places(self, seen):
        """What needs no reference."""
        where = collections.Counter(i for lists in (seen["q"], seen["proc"]) for l in lists.values() for i in l)
        assert all(n == 1 for n in where.values()), f"in two places: {where.most_common(3)}"
        held = {i for l in seen["proc"].values() for i in l}
        leases = seen["lease"].get("", {})
        assert set(leases) <= held, "a lease without a holder"
        assert set(seen["proc"]) <= set(seen["procs"].get("", [])), "a processing list that recovery does not know"
        for model in MODELS:
            for p in PRIORITIES:
                users = {k.rsplit(":", 1)[1] for k in seen["q"] if k.startswith(f"{model}:{p}:")}
                ring = seen["ring"].get(f"{model}:{p}", [])
                assert set(ring) == users and len(ring) == len(users), f"turns of {model} {p}: {ring}, users {users}"
                n = sum(len(v) for k, v in seen["q"].items() if k.startswith(f"{model}:{p}:"))
                counted = int(seen["count"].get(model, {}).get(str(p), 0))
                assert counted == n, f"{counted} counted in {model} {p}, {n} wait"
            tokens = len(seen["wake"].get(model, []))
            assert tokens <= 64, "tokens without end"
            # a model that was paused or open has no token until the next push or claim: idle workers look now and then
            if self.ref.runs(model) != "yes":
                self.asleep.add(model)
            elif tokens:
                self.asleep.discard(model)
            if model not in self.asleep and any(k.startswith(f"{model}:") for k in seen["q"]):
                assert tokens > 0, f"jobs of {model} wait and nobody is woken"

    def check_reference(self, seen, now):
        queues = {":".join(map(str, k)): [j.id for j in reversed(q)] for k, q in self.ref.queues.items() if q}
        assert seen["q"] == queues
        turns = {":".join(map(str, k)): list(reversed(t)) for k, t in self.ref.turns.items() if t}
        assert seen["ring"] == turns
        assert seen["tick"].get("", {}) == {m: str(n) for m, n in self.ref.claims.items()}
        proc, leases = collections.defaultdict(set), {}
        for j in self.jobs:
            fields = seen["job"].get(j.id)
            if j.state == "absent":
                assert fields is None, f"{j.id} should be unknown: {fields}"
                continue
            assert fields is not None, f"{j.id} is {j.state}, and Redis does not know it"
            assert (fields.get("cancel") == "1") == j.cancel, f"mark of {j.id}"
            if j.state == "waiting":
                assert fields["list"] == f"sg:q:{j.model}:{j.priority}:{j.user}" and "worker" not in fields
                assert int(fields["at"]) == j.at, f"{j.id} lost its place in time"
            elif j.state == "gone":
                assert fields["worker"] == "" and "list" not in fields
            else:
                assert fields["worker"] == j.holder and fields.get("lost") == j.lost and "list" not in fields
                if j.notes:
                    assert (fields["progress"], fields["stage"], fields["seq"]) == j.notes
                proc[j.holder].add(j.id)
                if j.lease is not None:
                    leases[j.id] = j.lease
        assert {k: set(v) for k, v in seen["proc"].items()} == dict(proc)
        found = {i: LONG if float(t) > now else OVER for i, t in seen["lease"].get("", {}).items()}
        assert found == leases
        assert set(seen["workers"].get("", {})) == set(self.ref.registry)
        assert set(seen["paused"].get("", [])) == self.ref.paused
        for model, b in self.ref.breakers.items():
            fields = seen["breaker"].get(model, {})
            assert fields.get("state", "closed") == ("closed" if b.until is None else "open"), f"breaker of {model}"
            assert (fields.get("probe") or None) == (b.probe.id if b.probe else None), f"probe of {model}"
            assert len(seen["outcomes"].get(model, {})) == len(b.outcomes)

    # -- the round --

    def fail(self, problem):
        steps = "\n  ".join(self.log)
        pytest.fail(f"LUA_SEED={self.seed}: {problem}\nlast steps:\n  {steps}", pytrace=False)

    def run(self, steps):
        self.started = self.look()[1]
        names, weights = list(self.WEIGHTS), list(self.WEIGHTS.values())
        for n in range(steps):
            name = self.rng.choices(names, weights)[0]
            self.counts[name] += 1
            try:
                reply, want = getattr(self, f"step_{name}")()
                self.log.append(f"{n} {name}: {reply}")
                assert reply == want, f"{name} said {reply}, the rules say {want}"
                self.check()
            except (AssertionError, KeyError, RuntimeError) as e:
                self.fail(f"step {n} ({name}): {type(e).__name__} {e}")
        try:
            self.drain()
        except AssertionError as e:
            self.fail(f"drain: {e}")
        return self.counts

    def drain(self):
        """Everybody finishes: nothing may be left but marks that expire by themselves."""
        r = self.redis
        r("DEL", "sg:paused", *(f"sg:{k}:{m}" for k in ("breaker", "outcomes") for m in MODELS))
        while pairs := r.run("recover", ["sg:lease", "sg:procs", "sg:workers"], "sweeper-end", LONG, 200, LONG):
            for i in pairs[::2]:
                r.run("release", ["sg:proc:sweeper-end", "sg:procs", "sg:lease"], "sweeper-end", i, "drop")
        for j in self.jobs:
            if j.state == "held":
                r.run("release", [f"sg:proc:{j.holder}", "sg:procs", "sg:lease"], j.holder, j.id, "drop")
        while job := r.run("claim", ["sg:proc:w", "sg:procs", "sg:lease"], "w", LONG, LONG, 8, 1, *MODELS):
            r.run("release", ["sg:proc:w", "sg:procs", "sg:lease"], "w", job[0], "drop")
        time.sleep(0.002)
        r.run("recover", ["sg:lease", "sg:procs", "sg:workers"], "sweeper-end", LONG, 200, 0)
        seen, _ = self.look()
        left = {k: v for k, v in seen.items() if v and k not in ("job", "tick")}
        assert not left, f"left over: {left}"
        for i, fields in seen["job"].items():
            assert 0 < r("TTL", f"sg:job:{i}") <= 7200, f"sg:job:{i} stays for ever: {fields}"


def test_random_interleavings(redis, record_property):
    print(f"LUA_SEED={SEED} LUA_STEPS={STEPS}")
    record_property("LUA_SEED", SEED)
    counts, done = collections.Counter(), 0
    while done < STEPS:
        n = min(ROUND, STEPS - done)
        counts += Round(redis, SEED + done // ROUND).run(n)
        done += n
    print(f"{done} steps: " + ", ".join(f"{k} {v}" for k, v in counts.most_common()))
    if done >= 5000:
        assert set(counts) == set(Round.WEIGHTS), "a script was never run"


def test_a_broken_script_is_noticed(redis):
    """The test can fail: recovery that forgets to take the id out of the old list, a ring that keeps absent users, and so on."""
    Round(redis, 7).run(2000)
    for name, good, bad in (("recover", "redis.call('LREM', 'sg:proc:' .. worker, 0, id)", "do end"),
                            ("remove", "redis.call('LREM', 'sg:ring:' .. job[2] .. ':' .. job[3], 0, job[4])", "do end"),
                            ("claim", "redis.call('LPUSH', job.ring, job.user)", "redis.call('RPUSH', job.ring, job.user)"),
                            ("renew", "redis.call('HGET', key, 'worker') ~= worker", "false"),
                            ("enqueue", "redis.call('LPOS', list, id)", "false"),
                            ("position", "turn_passed and depth or depth + 1", "depth")):
        text = (LUA / f"{name}.lua").read_text()
        assert text.count(good) >= 1, f"{name}.lua has changed: adapt this test"
        redis.load(name, text.replace(good, bad))
        try:
            with pytest.raises(pytest.fail.Exception):
                Round(redis, 7).run(2000)
                print(f"not noticed: {name}")
        finally:
            redis.load(name, text)
