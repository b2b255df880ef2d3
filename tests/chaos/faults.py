"""What is done to the system. Each fault is a method of Faults; a short one is over when it returns, a longer one goes on
in a thread of its own while others strike. Everything is drawn from one seed; what happens in between is not repeatable,
the choice of faults and their lengths is."""
import collections
import random
import signal
import threading
import time

from harness import wait_until
from stack import LEASE

WEIGHTS = {"kill_worker": 52, "kill_gateway": 8, "term_worker": 4, "freeze_worker": 5, "freeze_gateway": 2, "redis_restart": 3,
           "redis_flush": 4, "postgres_restart": 3, "slow_link": 6, "cut_link": 6, "freeze_link": 4, "clock_jump": 3}
# Faults of a part that all share: recovery may take longer while they last.
SHARED = {"redis_restart", "redis_flush", "postgres_restart"}


class Faults:
    def __init__(self, stack, seed, say):
        self.stack, self.random, self.say = stack, random.Random(seed), say
        self.counts = collections.Counter()
        self.kills = []          # (time, worker id): SIGKILLs of workers that had got ready
        self.spans = []          # [kind, target, from, to]
        self.findings = []       # ends that nobody asked for, bad exit statuses
        self.lock = threading.Lock()
        self.shared = threading.Lock()   # one outage of PostgreSQL or Redis at a time
        self.threads = []
        self.weights = dict(WEIGHTS)
        if not any(d.clock for d in stack.daemons):
            say("libfaketime is not installed, or cannot be used with this build: no clock jumps")
            del self.weights["clock_jump"]

    # ---- bookkeeping ----

    def take(self, daemons):
        """A daemon that nothing else is being done to, or None. One gateway and two workers are always left alone, so
        that there is somebody to recover."""
        with self.lock:
            free = [d for d in daemons if not d.busy]
            left = [sum(not d.busy for d in group) for group in (self.stack.gateways, self.stack.crew)]
            free = [d for d in free if (left[0] > 1 if d in self.stack.gateways else left[1] > 2)]
            if not free:
                return None
            daemon = self.random.choice(free)
            daemon.busy = True
            return daemon

    def give_back(self, daemon):
        with self.lock:
            daemon.busy = False

    def during(self, kind, target, seconds, begin, end, daemon=None):
        """A fault that lasts: begin() now, end() after `seconds`, in a thread."""
        span = [kind, target, time.time(), None]
        self.spans.append(span)
        begin()

        def finish():
            try:
                time.sleep(seconds)
                end()
            finally:
                span[3] = time.time()
                if daemon:
                    self.give_back(daemon)
        thread = threading.Thread(target=finish, daemon=True)
        self.threads.append(thread)
        thread.start()

    def look_for_the_dead(self):
        """Starts again what ended by itself, as a supervisor would, and notes it."""
        for daemon in self.stack.daemons:
            with self.lock:
                if daemon.busy or daemon.told_to_end or daemon.process.running:
                    continue
                daemon.busy = True
            status = daemon.process.popen.poll()
            self.findings.append(f"{daemon.name} ended by itself with {status}:\n{daemon.process.tail(6)}")
            daemon.start()
            self.give_back(daemon)

    # ---- faults ----

    def kill(self, daemons):
        daemon = self.take(daemons)
        if daemon is None:
            return False
        name = daemon.worker_id() if daemons is self.stack.crew else None
        daemon.told_to_end = True
        at = time.time()
        daemon.process.kill(signal.SIGKILL)
        daemon.process.popen.wait()
        if name:
            self.kills.append((at, name))
        daemon.start()
        self.give_back(daemon)
        return True

    def kill_worker(self):
        return self.kill(self.stack.crew)

    def kill_gateway(self):
        return self.kill(self.stack.gateways)

    def term_worker(self):
        daemon = self.take(self.stack.crew)
        if daemon is None:
            return False
        ready = daemon.worker_id() is not None
        daemon.told_to_end = True
        start = time.monotonic()
        try:
            status = daemon.process.stop(signal.SIGTERM, timeout=25)
            if status != 0 and ready:
                self.findings.append(f"{daemon.name} ended with {status} after SIGTERM:\n{daemon.process.tail(6)}")
        except AssertionError as e:
            self.findings.append(f"{e}\n{daemon.process.tail(6)}")
        self.say(f"{daemon.name} stopped in {time.monotonic() - start:.1f} s")
        daemon.start()
        self.give_back(daemon)
        return True

    def freeze(self, daemons, seconds):
        daemon = self.take(daemons)
        if daemon is None:
            return False
        self.during("freeze", daemon.name, seconds, lambda: daemon.process.kill(signal.SIGSTOP),
                    lambda: daemon.process.kill(signal.SIGCONT), daemon)
        return True

    def freeze_worker(self):
        return self.freeze(self.stack.crew, LEASE + self.random.uniform(0.2, 3))

    def freeze_gateway(self):
        return self.freeze(self.stack.gateways, self.random.uniform(0.5, 4))

    def outage(self, kind, down, up):
        if not self.shared.acquire(blocking=False):
            return False
        span = [kind, "all", time.time(), None]
        self.spans.append(span)
        length = self.random.choice([0, self.random.uniform(0, 3)])

        def run():
            try:
                down()
                time.sleep(length)
                up()
            except Exception as e:
                self.findings.append(f"{kind}: {e}")
            finally:
                span[3] = time.time()
                self.shared.release()
        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()
        return True

    def redis_restart(self):
        return self.outage("redis_restart", lambda: self.stack.redis.stop(signal.SIGKILL), self.stack.start_redis)

    def redis_flush(self):
        return self.outage("redis_flush", lambda: self.stack.redis_cli("FLUSHALL"), lambda: None)

    def postgres_restart(self):
        return self.outage("postgres_restart", lambda: self.stack.postgres.stop(signal.SIGQUIT), self.stack.start_postgres)

    def link(self, seconds, **how):
        daemon = self.take(self.stack.daemons)
        if daemon is None:
            return False
        name = f"{daemon.name}.{self.random.choice(['pg', 'redis'])}"
        off = {key: 0 if key == "delay" else False for key in how}
        self.during("link", name, seconds, lambda: self.stack.proxy.set(name, **how),
                    lambda: self.stack.proxy.set(name, **off), daemon)
        return True

    def slow_link(self):
        return self.link(self.random.uniform(1, 5), delay=self.random.choice([0.005, 0.03, 0.15]))

    def cut_link(self):
        return self.link(self.random.uniform(0.05, LEASE + 2), cut=True)

    def freeze_link(self):
        return self.link(self.random.uniform(0.5, LEASE + 3), frozen=True)

    def clock_jump(self):
        daemon = self.take([d for d in self.stack.daemons if d.clock])
        if daemon is None:
            return False
        jump = self.random.choice([-86400, -3600, -30, 30, 3600, 86400])
        self.during("clock", f"{daemon.name} {jump:+d} s", self.random.uniform(2, 6),
                    lambda: daemon.clock.write_text(f"{jump:+d}"), lambda: daemon.clock.write_text("+0"), daemon)
        return True

    # ---- all of them ----

    def strike(self, only_kills=False):
        weights = {k: w for k, w in self.weights.items() if k.startswith("kill") or not only_kills}
        kind = self.random.choices(list(weights), list(weights.values()))[0]
        if getattr(self, kind)():
            self.counts[kind] += 1

    @property
    def kill_count(self):
        return self.counts["kill_worker"] + self.counts["kill_gateway"]

    def end(self):
        """Waits until the lasting ones are over and everything runs."""
        for thread in self.threads:
            thread.join(30)
        self.stack.proxy.clear()
        for daemon in self.stack.daemons:
            if daemon.clock:
                daemon.clock.write_text("+0")
        self.look_for_the_dead()
        wait_until(lambda: self.stack.sql("SELECT 1") and self.stack.redis_cli("PING") == "PONG", 30, "the servers' return")
        self.stack.everybody_ready(120)
