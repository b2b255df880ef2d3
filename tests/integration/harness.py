"""A real Spheroseg for tests: private PostgreSQL and Redis on loopback, the gateway and any number of workers.

Everything lives in one temporary directory and ends with `Stack.stop()`. Each process can be killed and started
again by itself, which is what the failure tests do. Nothing here is a mock.
"""
import contextlib
import json
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psycopg2

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SPHEROSEG_BUILD", ROOT / "build")).resolve()
SHARED = ROOT.parent / "shared"
# Another server that speaks Redis's protocol, such as /usr/bin/valkey-server
REDIS_SERVER = os.environ.get("SPHEROSEG_REDIS_SERVER") or "redis-server"
REDIS_CLI = shutil.which("redis-cli") or shutil.which("valkey-cli") or "redis-cli"


def free_port():
    with contextlib.closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Ended(AssertionError):
    """A process ended that should run: waiting longer is pointless."""


PATIENCE = 30   # a shared machine may stand still for seconds; a test of a bound measures it itself


def wait_until(check, seconds, what):
    """Calls check() until it returns something true; that is returned. Waits for `seconds`, at least PATIENCE."""
    seconds = max(seconds, PATIENCE)
    end = time.monotonic() + seconds
    last = None
    while time.monotonic() < end:
        try:
            value = check()
            if value:
                return value
        except Ended:
            raise
        except Exception as e:  # the thing is not up yet
            last = e
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds} s ({last})")


def _pg_bin():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise RuntimeError("PostgreSQL's server programs are missing: scripts/install-deps.sh --run")
    return found[-1].parent


class Process:
    """One child with a log file; argv and env are kept so that it can be started again."""

    def __init__(self, name, argv, env, log_dir, preexec=None):
        self.name, self.argv, self.env, self.preexec = name, [str(a) for a in argv], env, preexec
        self.log = log_dir / f"{name}.log"
        self.popen = None

    def start(self):
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(self.argv, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                          cwd=ROOT, preexec_fn=self.preexec, start_new_session=True)
        return self

    @property
    def running(self):
        return self.popen is not None and self.popen.poll() is None

    def kill(self, number):
        if self.running:
            self.popen.send_signal(number)

    def stop(self, number=signal.SIGTERM, timeout=30):
        """Returns the exit status; a process that does not end in time is killed and fails the test."""
        if self.popen is None:
            return None
        self.kill(number)
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"{self.name} did not stop within {timeout} s; see {self.log}")

    def tail(self, lines=15):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


class Stack:
    """PostgreSQL, Redis, gateway, workers. `env` adds settings to both daemons."""

    def __init__(self, workers=1, env=None, ui=False):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="spheroseg-test-"))
        self.dir.chmod(0o755)
        self.logs = self.dir / "logs"
        self.logs.mkdir()
        self.env = env or {}
        self.ui = ui
        self.pg_port, self.redis_port = free_port(), free_port()
        self.https_port, self.http_port, self.metrics_port = free_port(), free_port(), free_port()
        self.redis_password = f"r{random.getrandbits(64):x}"
        self.pg_password = f"p{random.getrandbits(64):x}"
        self.postgres = self.redis = self.gateway = None
        self.workers = []
        self.worker_count = workers

    # ---- parts ----

    def start_postgres(self):
        if self.postgres is None:
            data = self.dir / "postgres"
            preexec = None
            if os.geteuid() == 0:  # PostgreSQL refuses to run as root
                user = pwd.getpwnam("postgres")

                def preexec(user=user):
                    os.setgroups([])
                    os.setgid(user.pw_gid)
                    os.setuid(user.pw_uid)
                data.mkdir(mode=0o700)
                os.chown(data, user.pw_uid, user.pw_gid)
            password = self.dir / "pgpass"
            password.write_text(self.pg_password)
            password.chmod(0o644)
            subprocess.run([_pg_bin() / "initdb", "-D", data, "-U", "spheroseg", "-E", "UTF8", "--locale=C.UTF-8",
                            "-A", "scram-sha-256", f"--pwfile={password}", "--no-sync"],
                           check=True, stdout=subprocess.DEVNULL, preexec_fn=preexec, cwd="/")
            self.postgres = Process("postgres", [_pg_bin() / "postgres", "-D", data, "-p", self.pg_port,
                                                 "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
                                                 "-c", "fsync=off"], dict(os.environ), self.logs, preexec)
        self.postgres.start()
        wait_until(lambda: self.sql("SELECT 1"), 30, "PostgreSQL's start")

    def start_redis(self):
        if self.redis is None:
            (self.dir / "redis").mkdir()
            self.redis = Process("redis", [REDIS_SERVER, "--bind", "127.0.0.1", "--port", self.redis_port,
                                           "--requirepass", self.redis_password, "--dir", self.dir / "redis",
                                           "--save", "", "--appendonly", "no"], dict(os.environ), self.logs)
        self.redis.start()
        wait_until(lambda: self.redis_cli("PING") == "PONG", 10, "Redis's start")

    def daemon_env(self, **extra):
        env = dict(os.environ)
        env.update(
            DATABASE_URL=f"postgresql://spheroseg:{self.pg_password}@127.0.0.1:{self.pg_port}/postgres",
            REDIS_URL=f"redis://:{self.redis_password}@127.0.0.1:{self.redis_port}/0",
            STORAGE_DIR=str(self.dir / "storage"), MODELS_DIR=str(ROOT / "segworker/models"),
            MIGRATIONS_DIR=str(ROOT / "proto/sql"), TLS_DIR=str(self.dir / "tls"), LISTEN_HOST="127.0.0.1",
            JOB_LEASE="3000", JOB_BACKOFF="100", LOG_LEVEL="debug", SEGWORKER_THREADS="1", RESULT_CACHE="false",
            LOGIN_RATE_LIMIT="1000", UI_DIR=str(BUILD / "ui"), ASAN_OPTIONS="detect_leaks=0:abort_on_error=1",
            UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1")
        env.update(self.env)
        env.update({k: str(v) for k, v in extra.items()})
        return env

    def start_gateway(self, wait=True):
        if self.gateway is None:
            self.gateway = Process("gateway", [BUILD / "gateway"], self.daemon_env(
                HTTPS_PORT=self.https_port, HTTP_PORT=self.http_port, METRICS_PORT=self.metrics_port), self.logs)
        self.gateway.start()
        if wait:
            self._ready(self.gateway, self.metrics_port, 60)

    def add_worker(self, wait=True, **env):
        port = free_port()
        worker = Process(f"worker{len(self.workers) + 1}", [BUILD / "segworker"],
                         self.daemon_env(METRICS_PORT=port, **env), self.logs)
        worker.metrics_port = port
        self.workers.append(worker.start())
        if wait:
            self._ready(worker, port, 120)
        return worker

    def _ready(self, process, port, seconds):
        def check():
            if not process.running:
                raise Ended(f"{process.name} ended:\n{process.tail()}")
            return http_get(port, "/ready")[0] == 200
        try:
            wait_until(check, seconds, f"{process.name} getting ready")
        except Ended:
            raise
        except AssertionError as e:
            raise AssertionError(f"{e}\n{process.tail()}") from None

    # ---- whole ----

    def start(self):
        try:
            self.start_postgres()
            self.start_redis()
            self.start_gateway()
            for _ in range(self.worker_count):
                self.add_worker(wait=False)
            for worker in self.workers:
                self._ready(worker, worker.metrics_port, 120)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self):
        for process in [*self.workers, self.gateway]:
            if process is not None and process.running:
                process.stop(signal.SIGKILL)
        if self.redis is not None:
            self.redis.stop(signal.SIGKILL)
        if self.postgres is not None:
            self.postgres.stop(signal.SIGQUIT)
        if os.environ.get("SPHEROSEG_KEEP"):
            print(f"kept {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def url(self):
        return f"https://127.0.0.1:{self.https_port}"

    # ---- looking inside ----

    def database(self):
        """A connection of psycopg2's; the caller closes it."""
        return psycopg2.connect(host="127.0.0.1", port=self.pg_port, user="spheroseg", password=self.pg_password,
                                dbname="postgres", connect_timeout=10)

    def sql(self, text, *params):
        with contextlib.closing(self.database()) as db:
            db.autocommit = True
            with db.cursor() as cursor:
                cursor.execute(text, params)
                return cursor.fetchall() if cursor.description else None

    def redis_cli(self, *args):
        env = dict(os.environ, REDISCLI_AUTH=self.redis_password)
        return subprocess.run([REDIS_CLI, "-p", str(self.redis_port), "--no-auth-warning", *map(str, args)],
                              env=env, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    def metric(self, port, name, **labels):
        """Value of one series, or None."""
        for line in http_get(port, "/metrics")[1].decode().splitlines():
            if line.startswith(name) and line[len(name)] in " {" and all(f'{k}="{v}"' in line for k, v in labels.items()):
                return float(line.rsplit(" ", 1)[1])
        return None


def http_get(port, path):
    """Plain HTTP on loopback (metrics ports): (status, body)."""
    import http.client
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


if __name__ == "__main__":  # a stack to play with: prints its address, ends with Ctrl-C
    stack = Stack(workers=1, ui=True).start()
    print(json.dumps({"url": stack.url, "dir": str(stack.dir)}), flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        stack.stop()
