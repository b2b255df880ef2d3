"""The rules of proto/jobs.md as a program that knows nothing of Redis's keys: what the tests of proto/lua compare with.

For each job one word (absent, waiting, held) and what goes with it. Time is moved by leases that are over at once, so that
nothing depends on the clock.
"""
import collections

MODELS = ("spheroid", "nuclei", "cells")
PRIORITIES = (1, 5, 6, 10)
USERS = ("ann", "ben", "cyd", "dan", "eve")
LONG, OVER = 3600000, 0  # a lease that outlives the test, and one that is over when the next command runs


class Job:
    def __init__(self, number, rng):
        self.id = f"{number:08x}-0000-4000-8000-000000000000"
        # some places in line are long, so that several users have several jobs there
        self.model = rng.choice(MODELS + MODELS[:1] * 4)
        self.priority, self.user = rng.choice(PRIORITIES + (5,) * 5), rng.choice(USERS + USERS[:2] * 2)
        self.forget()

    def forget(self):
        self.state = "absent"   # absent | waiting | held
        self.holder = None      # while held: worker
        self.tag = None         # and the claim's name
        self.lease = None       # None | LONG | OVER, while held
        self.lost = None        # (tag, worker) of the claim that was lost, while a sweeper holds it
        self.cancel = False
        self.at = None          # when it began to wait, by Redis's clock
        self.notes = None       # seq, progress, stage

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
        self.until, self.probe, self.outcomes = None, None, []


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
        self.ticks = collections.Counter()           # by model: claims while something of lesser priority waited
        self.lost = set()                            # (job, tag) of claims that were taken from their worker
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
                if j.state == "held":
                    self.lost.add((j, j.tag))
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

    def end(self, pairs):
        for j, tag in pairs:
            if j.state == "held" and j.tag == tag:
                j.forget()

    def claim(self, worker, tag, most, models, lease, age_now, every, sure=None, budget=0, costs=None):
        """age_now: whether a wait of any length counts as long enough. sure: so many jobs in any case (None: all of them); those
        ahead cost at most budget together with these, and leave as many of their model and priority behind as they are."""
        models = [m for m in models if self.runs(m) != "no"]
        got, ahead, spent = [], collections.Counter(), 0
        sure = most if sure is None else sure
        while len(got) < most:
            heads = [h for p in range(10, 0, -1) for m in models if (h := self._head(m, p))]
            if not heads:
                break
            top = max(h.priority for h in heads)
            job = min((h for h in heads if h.priority == top), key=lambda h: h.at)  # min keeps the first of equals
            ticking = job.model if any(h.priority < top for h in heads) else None
            if ticking and (self.ticks[ticking] + 1) % every == 0 and age_now:
                # the first of equals by the worker's order of models, then by priority
                job = min((h for m in models for h in heads if h.model == m), key=lambda h: h.at)
            if len(got) >= sure:
                spot = (job.model, job.priority)
                behind = sum((j.model, j.priority) == spot for j in self.jobs if j.state == "waiting") - 1
                ahead[spot] += 1
                if spent + costs[job.model] > budget or behind < ahead[spot]:
                    break
            spent += costs[job.model] if costs else 0
            if ticking:
                self.ticks[ticking] += 1
            self._leave(job)
            turns = self.turns[job.place]
            if job.user in turns:
                turns.remove(job.user)
                turns.append(job.user)
            probe = self.runs(job.model) == "probe"
            job.become("held", holder=worker, tag=tag, lease=lease)
            if probe:
                self.breakers[job.model].probe = job
                models.remove(job.model)
            got.append(job)
        return got

    def opens_later(self, models):
        """Whether a model with waiting jobs waits for its breaker's time to pass."""
        return any(self.breakers[m].until == LONG and m not in self.paused and self.waiting(m) for m in models)

    def outcome(self, model, job, good, opens_for, threshold, least):
        b = self.breakers[model]
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

    def renew(self, worker, pairs, lease):
        replies = []
        for j, tag in pairs:
            if j.state == "held" and (j.holder, j.tag) == (worker, tag):
                j.lease = lease
                replies.append(2 if j.cancel else 1)
            else:
                replies.append(0 if (j, tag) in self.lost else 3)
        self.registry[worker] = True
        return replies

    def release(self, pairs, how):
        ended = 0
        for job, tag in pairs:
            if job.state == "held" and job.tag != tag or job.state == "waiting":
                continue
            ended += job.state == "held"
            if how == "drop":
                job.forget()
            else:
                self._wait(job, how == "front")
        return ended

    def remove(self, jobs):
        jobs = [j for j in jobs if j.state == "waiting"]
        for j in jobs:
            self._leave(j)
            j.forget()
        return len(jobs)

    def cancel(self, job, tag):
        if job.state == "held" and job.tag == tag:
            job.cancel = True

    def recoverable(self):
        return {j for j in self.jobs if j.state == "held" and j.lease != LONG}

    def take(self, sweeper, tag, job, lease):
        self.lost.add((job, job.tag))
        lost = job.lost or (job.tag, job.holder)
        job.become("held", holder=sweeper, tag=tag, lost=lost, lease=lease)
        return lost[1], lost[0]

    def restore(self, claims, lease):
        made = 0
        for j, worker, tag in claims:
            if j.state == "absent":
                j.become("held", holder=worker, tag=tag, lease=lease)
            elif j.state == "held" and j.tag == tag and j.lease is None:
                j.lease = lease
            else:
                continue
            made += 1
        return made

    def progress(self, job, tag, notes):
        if job.state == "held" and job.tag == tag:
            job.notes = notes
        return int(job.state != "held" or job.tag == tag)

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
