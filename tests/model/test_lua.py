"""Property test of proto/lua: random interleavings of all scripts against a private Redis, compared after each step with a
reference (lua_reference.py) that knows the rules of proto/jobs.md and nothing of the keys.

Everything that Redis stores twice (what waits, turns, leases, wake-up tokens) is derived and must agree.

LUA_STEPS  steps in all (20000)      LUA_SEED  seed of the first round (random; printed)
"""
import collections
import os
import pathlib
import random
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from lua_redis import LUA, private_redis  # noqa: E402
from lua_reference import LONG, MODELS, OVER, PRIORITIES, Job, Reference  # noqa: E402

STEPS = int(os.environ.get("LUA_STEPS", "20000"))
SEED = int(os.environ.get("LUA_SEED", "0")) or random.SystemRandom().randrange(1, 2 ** 31)
ROUND = 2500  # steps of one round; each begins with an empty Redis

WORKERS = tuple(f"host-{i}" for i in range(6))
SWEEPERS = ("sweeper-a", "sweeper-b")
KINDS = ("q", "turns", "turn", "waiting", "tick", "held", "lease", "lost", "wake", "workers", "breaker", "outcomes", "paused",
         "open")
PAIRS = ("turn", "waiting", "tick", "held", "lease", "lost", "workers", "breaker", "outcomes")  # field and value in turn


@pytest.fixture(scope="module")
def redis():
    with private_redis() as client:
        yield client


class Round:
    def __init__(self, redis, seed):
        self.redis, self.rng, self.seed = redis, random.Random(seed), seed
        self.jobs = [Job(i, self.rng) for i in range(48)]
        self.by_id = {j.id: j for j in self.jobs}
        self.ref = Reference(self.jobs)
        self.log = collections.deque(maxlen=25)
        self.believed = collections.defaultdict(dict)  # worker -> {job: tag} that it thinks it holds, also after it lost them
        self.asleep = set()
        self.counts = collections.Counter()
        redis("FLUSHALL")

    # -- steps: each runs one script and returns (reply, what the rules say) --

    def some(self, jobs, most):
        jobs = list(jobs)
        return self.rng.sample(jobs, min(len(jobs), self.rng.randint(1, most)))

    def lease(self):
        return OVER if self.rng.random() < 0.2 else LONG

    def tag(self):
        return f"{self.rng.getrandbits(64):016x}"

    def claims_of(self, worker):
        return sorted(self.believed[worker].items(), key=lambda x: x[0].id)

    def a_claim(self):
        """A worker, and a job and the tag of a claim that it may believe to be its own."""
        worker = self.rng.choice(WORKERS + SWEEPERS)
        mine = self.claims_of(worker)
        if mine and self.rng.random() < 0.85:
            return worker, *self.rng.choice(mine)
        return worker, self.rng.choice(self.jobs), self.tag()

    def step_enqueue(self):
        jobs, front = self.some(self.jobs, 5), self.rng.random() < 0.2
        args = [x for j in jobs for x in (j.id, j.model, j.priority, j.user)]
        return self.redis.run("enqueue", [], "front" if front else "back", *args), self.ref.enqueue(jobs, front)

    def step_claim(self):
        worker, models, lease, tag = self.rng.choice(WORKERS), self.some(MODELS, 3), self.lease(), self.tag()
        age_now, every = self.rng.random() < 0.5, self.rng.choice((1, 2, 8))
        most = self.rng.choice((0, 1, 1, 1, 1, 2, 5, 9))
        done = self.some(self.claims_of(worker), 3) if self.believed[worker] and self.rng.random() < 0.4 else []
        if self.rng.random() < 0.1:
            done.append((self.rng.choice(self.jobs), tag[::-1]))
        news = ["sg:events:x", "{}"] * self.rng.randint(0, 2)
        sure = self.rng.choice((most, most, 1, 2))
        costs, budget = {m: self.rng.choice((1, 3, 3, 10, 100)) for m in models}, self.rng.choice((0, 10, 10, 25))
        reply = self.redis.run("claim", [], worker, tag, lease, 0 if age_now else LONG, every, most, sure, budget,
                               len(models), *(x for m in models for x in (m, costs[m])), len(news) // 2, *news,
                               *(x for j, t in done for x in (j.id, t)))
        self.ref.end(done)
        for j, _ in done:
            self.believed[worker].pop(j, None)
        later = most > 0 and self.ref.opens_later(models)
        jobs = self.ref.claim(worker, tag, most, models, lease, age_now, every, sure, budget, costs)
        self.believed[worker].update((j, tag) for j in jobs)
        if not jobs:
            assert isinstance(reply, int) and (0 < reply <= LONG) == later, f"wait hint {reply}"
            return None, None
        return reply, [x for j in jobs for x in (j.id, j.model, j.priority, j.user)]

    def step_breaker(self):
        model, good, opens_for = self.rng.choice(MODELS), self.rng.random() < 0.5, self.lease()
        b = self.ref.breakers[model]
        job = b.probe if b.probe and self.rng.random() < 0.7 else self.rng.choice(self.jobs)
        reply = self.redis.run("breaker", [f"sg:breaker:{model}", f"sg:outcomes:{model}"], model, job.id, int(good), 60, 4,
                               LONG, opens_for, 1000)
        return reply, self.ref.outcome(model, job, good, opens_for, 60, 4)

    def step_pause(self):
        self.ref.paused ^= {self.rng.choice(MODELS)}
        before = set(self.redis("SMEMBERS", "sg:paused"))
        return self.redis.run("pause", ["sg:paused"], *sorted(self.ref.paused)), len(before - self.ref.paused)

    def step_renew(self):
        worker, lease = self.rng.choice(WORKERS), self.lease()
        pairs = self.claims_of(worker)
        if self.rng.random() < 0.1:
            pairs += [(j, self.tag()) for j in self.some(self.jobs, 2) if j not in self.believed[worker]]
        reply = self.redis.run("renew", [], worker, lease, self.rng.choice(("{}", '{"host":"a"} ')),
                               *(x for j, t in pairs for x in (j.id, t)))
        want = self.ref.renew(worker, pairs, lease)
        for (j, _), r in zip(pairs, want):
            if r == 0 and self.rng.random() < 0.7:  # some go on for a while
                self.believed[worker].pop(j, None)
        return reply, want

    def step_release(self):
        worker, job, tag = self.a_claim()
        pairs = [(job, tag)]
        if self.rng.random() < 0.3:
            pairs += [p for p in self.some(self.claims_of(worker), 3) if p[0] is not job] if self.believed[worker] else []
        how = self.rng.choice(("drop", "drop", "front", "back"))
        for j, _ in pairs:
            self.believed[worker].pop(j, None)
        news = ["sg:events:x", "{}"] * self.rng.randint(0, 2)
        return (self.redis.run("release", [], how, len(news) // 2, *news,
                               *(x for j, t in pairs for x in (j.id, t, j.model, j.priority, j.user))),
                self.ref.release(pairs, how))

    def step_remove(self):
        jobs = self.some(self.jobs, 3)
        return (self.redis.run("remove", [], *(x for j in jobs for x in (j.id, j.model, j.priority, j.user))),
                self.ref.remove(jobs))

    def step_cancel(self):
        _, job, tag = self.a_claim()
        self.ref.cancel(job, tag)
        return self.redis.run("cancel", [], job.id, tag), 0  # nobody listens here

    def step_recover(self):
        sweeper, tag, lease, limit = self.rng.choice(SWEEPERS), self.tag(), self.lease(), self.rng.choice((1, 2, 200))
        reply = self.redis.run("recover", [], sweeper, tag, lease, limit, LONG)
        found = {self.by_id[i]: (w, t) for i, w, t in zip(reply[::3], reply[1::3], reply[2::3])}
        due = self.ref.recoverable()
        assert set(found) <= due, "took a job whose lease is valid"
        assert len(found) >= min(limit, len(due)), "left jobs whose lease has run out"
        want = {j: self.ref.take(sweeper, tag, j, lease) for j in found}
        self.believed[sweeper].update((j, tag) for j in found)
        return found, want

    def step_restore(self):
        lease, claims = self.lease(), []
        for j in self.some(self.jobs, 4):
            worker = self.rng.choice([w for w in WORKERS if j in self.believed[w]] or WORKERS)
            claims.append((j, worker, self.believed[worker].setdefault(j, self.tag())))
        return (self.redis.run("restore", [], lease, *(x for j, w, t in claims for x in (j.id, w, t, j.model, j.priority))),
                self.ref.restore(claims, lease))

    def step_progress(self):
        _, job, tag = self.a_claim()
        notes = (str(self.rng.randrange(1 << 40)), f"{self.rng.random():.4f}", self.rng.choice(("decode", "infer")))
        return self.redis.run("progress", [], job.id, tag, *notes), self.ref.progress(job, tag, notes)

    def step_position(self):
        waiting = [j for j in self.jobs if j.state == "waiting"]
        job = self.rng.choice(waiting if waiting and self.rng.random() < 0.9 else self.jobs)
        return self.redis.run("position", [], job.id, job.model, job.priority), self.ref.position(job)

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
        seen = {k: {} for k in KINDS}
        for key, value in keys:
            kind, _, rest = key[3:].partition(":")
            seen[kind][rest] = dict(zip(value[::2], value[1::2])) if kind in PAIRS else value
        # the places in line, next one first
        seen["turns"] = {m: sorted(zip(map(float, v[1::2]), v[::2])) for m, v in seen["turns"].items()}
        return seen, now

    def learn_times(self, seen, now):
        """The reference does not know Redis's clock: when a job began to wait is read once, and must then stay."""
        for j in self.jobs:
            if j.state == "waiting":
                at = int(seen["waiting"][f"{j.model}:{j.priority}"][j.id].split()[0])
                j.at = at if j.at is None else j.at
                assert self.started <= j.at == at <= now, f"{j.id} lost its place in time"

    def check(self):
        seen, now = self.look()
        self.learn_times(seen, now)
        self.check_places(seen)
        self.check_reference(seen, now)

    def check_places(self, seen):
        """What needs no reference."""
        held = set(seen["held"].get("", {}))
        where = collections.Counter(i for q in seen["q"].values() for i in q) + collections.Counter(held)
        assert all(n == 1 for n in where.values()), f"in two places: {where.most_common(3)}"
        assert set(seen["lease"].get("", {})) <= held, "a lease without a claim"
        for model in MODELS:
            users = {k.partition(":")[2] for k in seen["q"] if k.startswith(f"{model}:")}
            places = [entry for _, entry in seen["turns"].get(model, [])]
            assert set(places) == users and len(places) == len(users), f"turns of {model}: {places}, users {users}"
            for p in PRIORITIES:
                ids = {i for k, q in seen["q"].items() if k.startswith(f"{model}:{p}:") for i in q}
                assert set(seen["waiting"].get(f"{model}:{p}", {})) == ids, f"what waits in {model} {p}"
            tokens = len(seen["wake"].get(model, []))
            assert tokens <= 64, "tokens without end"
            # a model that is open or has a probe needs no token: an idle worker's wait ends with its time
            if self.ref.runs(model) != "yes":
                self.asleep.add(model)
            elif tokens:
                self.asleep.discard(model)
            if model not in self.asleep and users:
                assert tokens > 0, f"jobs of {model} wait and nobody is woken"

    def check_reference(self, seen, now):
        queues = {":".join(map(str, k)): [j.id for j in reversed(q)] for k, q in self.ref.queues.items() if q}
        assert seen["q"] == queues
        for model in MODELS:
            line = [f"{p}:{u}" for p in range(10, 0, -1) for u in self.ref.turns[(model, p)]]
            assert [entry for _, entry in seen["turns"].get(model, [])] == line, f"line of {model}"
        assert {m: n for m, n in seen["tick"].get("", {}).items() if n != "0"} == \
               {m: str(n) for m, n in self.ref.ticks.items() if n}
        claims, leases = {}, {}
        for j in self.jobs:
            if j.state == "held":
                words = [j.tag, j.holder] + ["cancel"] * j.cancel + ["at=" + "/".join(j.notes or ())] * bool(j.notes)
                claims[j.id] = sorted(words + ["lost=" + "/".join(j.lost or ())] * bool(j.lost))
                if j.lease is not None:
                    leases[j.id] = j.lease
        found = {i: sorted(claim.split(" ")) for i, claim in seen["held"].get("", {}).items()}
        assert found == claims
        assert {i: LONG if float(t) > now else OVER for i, t in seen["lease"].get("", {}).items()} == leases
        assert set(seen["lost"].get("", {})) == {f"{j.id} {t}" for j, t in self.ref.lost}
        assert set(seen["workers"].get("", {})) == set(self.ref.registry)
        assert set(seen["paused"].get("", [])) == self.ref.paused
        assert set(seen["open"].get("", [])) == {m for m, b in self.ref.breakers.items() if b.until is not None}
        for model, b in self.ref.breakers.items():
            fields = seen["breaker"].get(model, {})
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
        """Everybody finishes: nothing may be left but marks of lost claims and counters."""
        r = self.redis
        r("DEL", "sg:paused", "sg:open", *(f"sg:{k}:{m}" for k in ("breaker", "outcomes") for m in MODELS))

        def drop(job_id, tag):
            r.run("release", [], "drop", 0, job_id, tag, "", "", "")
        while found := r.run("recover", [], "sweeper-end", "e" * 16, LONG, 200, LONG):
            for i in found[::3]:
                drop(i, "e" * 16)
        for j in self.jobs:
            if j.state == "held":
                drop(j.id, j.tag)
        while job := r.run("claim", [], "w", "f" * 16, LONG, LONG, 8, 1, 1, 0, len(MODELS),
                           *(x for m in MODELS for x in (m, 1)), 0):
            if job == -1:
                break
            drop(job[0], "f" * 16)
        time.sleep(0.002)
        r.run("recover", [], "sweeper-end", "e" * 16, LONG, 200, 0)
        seen, _ = self.look()
        left = {k: v for k, v in seen.items() if v and k not in ("tick", "turn", "lost")}
        assert not left, f"left over: {left}"


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


def claims_in_batches(redis, seed):
    """The same jobs in two models, claimed in batches from one and one by one from the other: (batches, singles)."""
    rng = random.Random(seed)
    redis("FLUSHALL")
    jobs = [(i, rng.choice((9, 5, 5)), rng.choice("aabbcd")) for i in range(60)]
    for priority in (5, 9):  # the lesser are the older
        for model in "xy":
            redis.run("enqueue", [], "back", *(w for i, p, u in jobs if p == priority for w in (f"{model}{i}", model, p, u)))
        time.sleep(0.003)

    def claim(model, most, age, every):
        got = redis.run("claim", [], "w", "1" * 16, LONG, age, every, most, most, 0, 1, model, 1, 0)
        return [] if got == -1 else [i[1:] for i in got[::4]]
    batches, singles = [], []
    while len(batches) < len(jobs):
        most, age, every = rng.randint(1, 20), rng.choice((0, LONG)), rng.choice((3, 8))
        got = claim("x", most, age, every)
        batches += got
        singles += [claim("y", 1, age, every)[0] for _ in got]
    return batches, singles


def test_a_batch_is_like_single_claims(redis):
    for seed in range(40):
        batches, singles = claims_in_batches(redis, seed)
        assert batches == singles and len(set(batches)) == 60, f"seed {seed}"
    text = (LUA / "claim.lua").read_text()
    for good, bad in (("(extra + i - 1) % m + 1", "i"), ("math.min(n, rest - 1)", "math.min(n, every)")):
        assert good in text, "claim.lua has changed: adapt this test"
        redis.load("claim", text.replace(good, bad))
        try:
            assert any(b != s for b, s in (claims_in_batches(redis, seed) for seed in range(40))), f"{bad} is not noticed"
        finally:
            redis.load("claim", text)


def test_a_lease_without_a_claim_hides_nothing(redis):
    """Parts of Redis's memory are lost in turn: a claim without a lease is found even while other leases have no claim."""
    redis("FLUSHALL")
    redis.run("enqueue", [], "back", *(x for i in ("a", "b", "c") for x in (i, "nuclei", 5, "ann")))
    redis.run("claim", [], "w", "1" * 16, LONG, LONG, 8, 3, 3, 0, 1, "nuclei", 1, 0)
    redis("HDEL", "sg:held", "a")
    redis("ZREM", "sg:lease", "b")
    redis("ZADD", "sg:lease", 1, "a")
    found = redis.run("recover", [], "s", "2" * 16, LONG, 200, LONG)
    assert found == ["b", "w", "1" * 16]
    assert sorted(redis("ZRANGE", "sg:lease", 0, -1)) == ["b", "c"]


def test_a_place_that_outlived_its_jobs_is_taken_away(redis):
    redis("FLUSHALL")
    redis.run("enqueue", [], "back", "a", "nuclei", 9, "ann", "b", "nuclei", 9, "ben", "c", "nuclei", 5, "cyd")
    redis("DEL", "sg:q:nuclei:9:ann", "sg:q:nuclei:9:ben")
    for models in (["nuclei"], ["nuclei", "cells"]):
        got = redis.run("claim", [], "w", "1" * 16, LONG, 0, 1, 5, 5, 0, len(models),
                        *(x for m in models for x in (m, 1)), 0)
        assert got == (["c", "nuclei", 5, "cyd"] if models == ["nuclei"] else -1)
    assert redis("ZCARD", "sg:turns:nuclei") == 0


def test_a_broken_script_is_noticed(redis):
    """The test can fail: a job that a worker gets although it waits, a line that keeps absent users, and so on."""
    Round(redis, 7).run(2000)
    for name, good, bad in (("recover", "redis.call('ZADD', 'sg:lost', ms, id .. ' ' .. held)", "do end"),
                            ("remove", "redis.call('ZREM', 'sg:turns:' .. ARGV[i + 1], entry)", "do end"),
                            ("claim", "string.sub(claim, 1, 16) == ARGV[at + 2 * i]", "true"),
                            ("claim", "budget - spent - first * c", "budget - first * c"),
                            ("claim", "math.floor(waiting / 2)", "waiting"),
                            ("renew", "holder == tag .. ' ' .. worker", "claim"),
                            ("enqueue", "redis.call('LPOS', q, id)", "false"),
                            ("cancel", "string.sub(claim, 1, 16) == ARGV[i + 1]", "true"),
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
