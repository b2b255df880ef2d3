"""The system that is broken on purpose: several gateways and workers, each with links of its own to PostgreSQL and Redis.

What is added to tests/integration/harness.py: proxied links, several gateways, a clock of its own for some daemons, and
a history of every change of a job's state, kept by a trigger in PostgreSQL, so that the truth about what happened does
not depend on anything that is killed here.
"""
import json
import os
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/integration"), str(ROOT / "tests/chaos")]

from harness import BUILD, Process, Stack, free_port  # noqa: E402
from proxy import Proxy  # noqa: E402

LEASE = 3.0
MODELS = ROOT / "tests/chaos/models"
# The breaker is not the subject here: it would hold back the jobs of the failing model for half a minute.
SETTINGS = {"JOB_LEASE": str(int(LEASE * 1000)), "JOB_BACKOFF": "100", "LOG_LEVEL": "info", "STOP_TIMEOUT": "5",
            "START_TIMEOUT": "300", "ML_ERROR_THRESHOLD": "95", "MODELS_DIR": str(MODELS), "SEGWORKER_MODELS": "test-quick,test-slow,test-failing",
            "TSAN_OPTIONS": f"suppressions={ROOT}/tests/tsan.supp:halt_on_error=0:exitcode=66:history_size=4"}

HISTORY = """
CREATE TABLE chaos_history (n bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), job uuid NOT NULL,
    before text, after text, attempt int, worker text, error text);
CREATE INDEX ON chaos_history (job, n);
CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO chaos_history (job, after, attempt) VALUES (NEW.id, NEW.state, NEW.attempt);
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO chaos_history (job, before, attempt) VALUES (OLD.id, OLD.state, OLD.attempt);
    ELSIF OLD.state <> NEW.state THEN
        INSERT INTO chaos_history (job, before, after, attempt, worker, error)
        VALUES (NEW.id, OLD.state, NEW.state, NEW.attempt, COALESCE(NEW.worker_id, OLD.worker_id), NEW.error_code);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_note AFTER INSERT OR UPDATE OR DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION chaos_note();
"""


def faketime_library():
    """libfaketime for programs with threads, or None."""
    found = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return found[0] if found else None


class Daemon:
    """A gateway or a worker, its links, and what is being done to it."""

    def __init__(self, name, process, ports, clock=None):
        self.name, self.process, self.clock = name, process, clock
        self.https_port, self.metrics_port = ports
        self.log_from = 0
        self.busy = False        # a fault is at work on it
        self.told_to_end = True  # an end that nobody asked for is a finding
        self.restarts = 0

    def start(self):
        self.log_from = self.process.log.stat().st_size if self.process.log.exists() else 0
        self.told_to_end = False
        self.restarts += 1
        self.process.start()

    def worker_id(self):
        """Id of the run that goes on or went last; None when it never got ready."""
        with open(self.process.log, "rb") as log:
            log.seek(self.log_from)
            for line in log:
                if b'"worker ready"' in line:
                    return json.loads(line)["workerId"]
        return None

    def rss(self):
        """(now, most so far) in MiB."""
        try:
            text = pathlib.Path(f"/proc/{self.process.popen.pid}/status").read_text()
        except OSError:
            return 0, 0
        value = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in text.splitlines() if line.startswith("Vm")}
        return value.get("VmRSS", 0), value.get("VmHWM", 0)


class ChaosStack(Stack):
    def __init__(self, gateways=2, workers=4, real=False, env=None):
        super().__init__(workers=0, env={**SETTINGS, **(env or {})})
        self.proxy = None
        self.gateway_count, self.daemon_count, self.real = gateways, workers, real
        self.gateways, self.crew = [], []
        sanitized = "asan" in BUILD.name or "tsan" in BUILD.name
        self.faketime = None if sanitized else faketime_library()

    def _daemon(self, name, program, faked, **env):
        ports = free_port(), free_port()
        clock = None
        env = {"METRICS_PORT": ports[1], **env,
               "DATABASE_URL": f"postgresql://spheroseg:{self.pg_password}@127.0.0.1:"
                               f"{self.proxy.link(f'{name}.pg', self.pg_port)}/postgres",
               "REDIS_URL": f"redis://:{self.redis_password}@127.0.0.1:{self.proxy.link(f'{name}.redis', self.redis_port)}/0"}
        if program == "gateway":
            env |= {"HTTPS_PORT": ports[0], "HTTP_PORT": 0}
        if faked and self.faketime:
            clock = self.dir / f"{name}.clock"
            clock.write_text("+0")
            env |= {"LD_PRELOAD": self.faketime, "FAKETIME_TIMESTAMP_FILE": clock, "FAKETIME_CACHE_DURATION": 1,
                    "FAKETIME_DONT_FAKE_MONOTONIC": 1, "DONT_FAKE_MONOTONIC": 1}
        return Daemon(name, Process(name, [BUILD / program], self.daemon_env(**env), self.logs), ports, clock)

    def start(self):
        try:
            self.start_postgres()
            self.start_redis()
            self.proxy = Proxy()
            for n in range(self.gateway_count):
                daemon = self._daemon(f"gateway{n + 1}", "gateway", faked=n == 0)
                self.gateways.append(daemon)
                daemon.start()
                self._ready(daemon.process, daemon.metrics_port, 60)
            self.sql(HISTORY)
            for n in range(self.daemon_count):
                self.crew.append(self._daemon(f"worker{n + 1}", "segworker", faked=n == 0))
            if self.real:
                self.crew.append(self._daemon("real", "segworker", False, MODELS_DIR=ROOT / "segworker/models",
                                              SEGWORKER_MODELS="nuclei"))
            for daemon in self.crew:
                daemon.start()
            for daemon in self.crew:
                self._ready(daemon.process, daemon.metrics_port, 120)
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def daemons(self):
        return [*self.gateways, *self.crew]

    def stop(self):
        for daemon in self.daemons:
            daemon.told_to_end = True
            daemon.process.kill(18)  # a stopped process cannot end
            if daemon.process.running:
                daemon.process.stop(9)
        if self.proxy:
            self.proxy.stop()
        super().stop()

    def everybody_ready(self, seconds):
        end = time.monotonic() + seconds
        for daemon in self.daemons:
            self._ready(daemon.process, daemon.metrics_port, max(1, end - time.monotonic()))
