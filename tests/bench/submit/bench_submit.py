"""The submit path over TLS, durable in PostgreSQL: the gateway against a small Express server (reference.mjs).

Both answer POST /api/images/{id}/segmentation with 202 after the job's row is committed (fsync) and the job is in its
queue. Same machine, PostgreSQL, Redis, certificate, TLS version and cipher, token, table, pool size (20); no access log
on either side. wrk keeps the same number of connections open, each request for another image: first closed loop
(each connection sends when it has its answer: what can be done at most), then both at the same rate, 80 % of what
Express did at most, at random times (equal load). The two take turns; PostgreSQL and Redis are emptied before each
run. Afterwards each accepted request must have its row and its place in the queue. wrk, PostgreSQL and Redis share
the machine's cores with what is measured; the CPU that each took is told.
"""
import base64
import hashlib
import hmac
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import common  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
USER = "00000000-0000-4000-8000-000000000001"
PROJECT = "00000000-0000-4000-8000-000000000002"
POOL = 20  # PostgreSQL connections of each: the gateway's default
SECRET = "a secret for benchmarks only, long enough"


def token():
    def part(data):
        return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=")
    now = int(time.time())
    body = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(
        {"sub": USER, "email": "bench@example.org", "role": "user", "iss": "spheroseg", "aud": "spheroseg",
         "iat": now, "exp": now + 7200})
    return (body + b"." + part(hmac.new(SECRET.encode(), body, hashlib.sha256).digest())).decode()


class Bench:
    def __init__(self, stack, images):
        self.stack, self.images, self.token = stack, images, token()
        self.reference = None
        self.reference_port = common.harness.free_port()

    def start(self):
        s = self.stack
        s.start_postgres()
        s.start_redis()
        s.start_gateway()
        env = dict(s.daemon_env(), PORT=str(self.reference_port), POOL=str(POOL), NODE_ENV="production",
                   TLS_CERT=str(s.dir / "tls" / "gateway.crt"), TLS_KEY=str(s.dir / "tls" / "gateway.key"))
        node = shutil.which("node")
        self.reference = common.harness.Process("reference", [node, HERE / "reference.mjs"], env, s.logs).start()
        common.harness.wait_until(lambda: "ready" in self.reference.tail(), 20, "the reference's start")

    def stop(self):
        if self.reference and self.reference.running:
            self.reference.stop()

    def reset(self):
        """Empties everything and makes the images anew."""
        s = self.stack
        s.sql("TRUNCATE users CASCADE")
        s.redis_cli("FLUSHALL")  # the rows first: the gateway's audit would push those that an empty Redis does not know
        s.sql("INSERT INTO users (id, email, password_hash) VALUES (%s, 'bench@example.org', '-')", USER)
        s.sql("INSERT INTO projects (id, owner_id, title) VALUES (%s, %s, 'bench')", PROJECT, USER)
        s.sql("INSERT INTO models (name, version, title, description, sha256, manifest) VALUES "
              "('bench', '1', 'bench', '', '-', '{}') ON CONFLICT DO NOTHING")
        s.sql("INSERT INTO images (id, project_id, name, format, byte_size, sha256, storage_key, width, height, "
              "bit_depth, channels) SELECT ('00000000-0000-4000-a000-' || lpad(i::text, 12, '0'))::uuid, %s, 'i' || i, "
              "'png', 1, decode(repeat('00', 32), 'hex'), 'k' || i, 1, 1, 8, 1 FROM generate_series(1, %s) i",
              PROJECT, self.images)
        s.sql("VACUUM ANALYZE images")
        s.sql("VACUUM ANALYZE jobs")
        s.sql("CHECKPOINT")

    def queued(self, system):
        if system == "gateway":
            return int(self.stack.redis_cli("LLEN", f"sg:q:bench:5:{USER}"))
        return int(self.stack.redis_cli("ZCARD", "bull:bench:prioritized"))

    def tls(self, system):
        """What the two speak with the same client."""
        context = ssl.create_default_context(cafile=str(self.stack.dir / "tls" / "gateway.crt"))
        port = self.stack.https_port if system == "gateway" else self.reference_port
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 5), server_hostname="localhost") as s:
            return f"{s.version()} {s.cipher()[0]}"

    def run(self, system, seconds, connections, rate=0):
        self.reset()
        s = self.stack
        port = s.https_port if system == "gateway" else self.reference_port
        process = s.gateway if system == "gateway" else self.reference
        self.wrk(port, 1, 8, 1, 1)  # connections, prepared statements, compiled code
        time.sleep(0.5)  # what was in flight when wrk stopped is committed, too
        first = self.used() + 1
        threads = min(2, connections)
        before = self.cpu(process)
        answer = self.wrk(port, seconds, connections, threads, first, rate)
        for who, used in self.cpu(process).items():
            answer[who + "CpuUsPerRequest"] = (used - before[who]) * 1e6 / max(answer["requests"], 1)
        answer["rssBytes"] = common.rss_bytes(process.popen.pid)
        rows = s.sql("SELECT count(*) FROM jobs")[0][0]
        # What was in flight when wrk stopped is accepted, too, but not counted by wrk.
        common.harness.wait_until(lambda: self.queued(system) == s.sql("SELECT count(*) FROM jobs")[0][0], 20,
                                  f"each job's way into {system}'s queue")
        least = first - 1 + answer["requests"]
        if answer["badStatus"] or answer["socketErrors"] or not least <= rows <= least + connections:
            raise RuntimeError(f"{system}: {answer}, {rows} rows, at least {least} expected\n{process.tail()}")
        return answer

    def cpu(self, process):
        children = os.times()
        return {"own": process_cpu(process.popen.pid), "postgres": family_cpu(self.stack.postgres.popen.pid),
                "redis": process_cpu(self.stack.redis.popen.pid), "wrk": children.children_user + children.children_system}

    def used(self):
        return self.stack.sql("SELECT count(*) FROM jobs")[0][0]

    def wrk(self, port, seconds, connections, threads, first, rate=0):
        done = subprocess.run(
            ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{seconds}s", "-s", str(HERE / "submit.lua"),
             f"https://127.0.0.1:{port}", "--", self.token, str(first), str(threads),
             str(rate / threads)],
            capture_output=True, text=True, timeout=seconds + 60)
        if done.returncode != 0:
            raise RuntimeError(done.stdout + done.stderr)
        return json.loads(done.stdout.splitlines()[-1])


def process_cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family_cpu(pid):
    """CPU seconds of PostgreSQL: the first process, those that it has now, those that have ended."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = sum(int(f) for f in fields[11:15])
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


SYSTEMS = ("gateway", "express")
CPU = ("own", "postgres", "redis", "wrk")


def measure(storage, images, seconds, repeat, connections):
    """{connections: {"most": {system: figures}, "equal": {system: figures}, "rate": R}}, and what TLS they speak."""
    stack = common.BenchStack(env={"JWT_SECRET": SECRET, "MAX_QUEUED_PER_USER": "1000000",
                                   "MAX_QUEUED_TOTAL": "1000000", "DB_POOL_MAX": str(POOL), "REDIS_POOL_MAX": "32"},
                              storage=storage)
    bench = Bench(stack, images)
    try:
        bench.start()
        tls = {system: bench.tls(system) for system in SYSTEMS}
        if len(set(tls.values())) != 1:
            raise RuntimeError(f"not the same TLS: {tls}")
        loads = {}
        for c in connections:
            most = take_turns(bench, seconds, repeat, c, 0)
            rate = 0.8 * most["express"]["requestsPerSecond"]["median"]
            loads[str(c)] = {"most": most, "rate": round(rate, 1),
                             "equal": take_turns(bench, seconds, max(1, repeat - 1), c, rate)}
        return loads, tls["gateway"]
    finally:
        bench.stop()
        stack.stop()


def take_turns(bench, seconds, repeat, connections, rate):
    runs = {system: [] for system in SYSTEMS}
    for _ in range(repeat):
        for system in SYSTEMS:
            runs[system].append(bench.run(system, seconds, connections, rate))
    return {system: {"requestsPerSecond": common.spread([r["requests"] / r["seconds"] for r in list_]),
                     **{k: common.spread([r[k] for r in list_])
                        for k in ("p50Us", "p90Us", "p99Us", "maxUs", "rssBytes", *(f"{w}CpuUsPerRequest" for w in CPU))}}
            for system, list_ in runs.items()}


def show(loads, storage):
    targets = []
    for connections, load in loads.items():
        at = f"{connections} connections, {storage}"
        for kind, title in (("most", "closed loop"), ("equal", f"{load['rate']:.0f} requests/s")):
            f = load[kind]

            def m(system, key, f=f):
                return f[system][key]["median"]
            rows = [[s, m(s, "requestsPerSecond"), m(s, "p50Us") / 1000, m(s, "p99Us") / 1000,
                     *(m(s, f"{w}CpuUsPerRequest") for w in CPU), m(s, "rssBytes") / 2**20] for s in f]
            common.print_table(f"Submit, {title}, {at} (median)", [
                "system", "requests/s", "p50 ms", "p99 ms", "its CPU us/request", "PostgreSQL", "Redis", "wrk", "RSS MiB"],
                rows)
            p99 = m("gateway", "p99Us") / m("express", "p50Us")
            if kind == "equal":
                targets.append(common.target(f"submit p99 against Express's p50 at the same rate, {at}", p99, 1, False, "x"))
                continue
            targets += [
                common.target(f"submit requests/s against Express, {at}",
                              m("gateway", "requestsPerSecond") / m("express", "requestsPerSecond"), 5, unit="x"),
                common.target(f"submit p99 against Express's p50, each at its most, {at}", p99, 1, False, "x"),
                common.target(f"gateway RSS against Express, {at}", m("gateway", "rssBytes") / m("express", "rssBytes"),
                              1 / 3, False, "x")]
    return targets


def main():
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--connections", default=None, help="comma-separated (default 8,32)")
    args = parser.parse_args()
    common.node_modules()
    seconds, repeat = (2, 1) if args.quick else (4, 3)
    repeat = args.repeat or repeat
    connections = [int(c) for c in (args.connections or ("8" if args.quick else "8,32")).split(",")]
    machine = common.machine()
    images = 40000 if args.quick else 120000
    figures, targets, tls = {}, [], ""
    for storage in ("memory",) if args.quick else ("disk", "memory"):
        figures[storage], tls = measure(storage, images, seconds, repeat, connections)
        targets += show(figures[storage], storage)
    common.write("submit", args, machine, figures, targets, {
        "secondsPerRun": seconds, "repetitions": repeat, "images": images, "load": "wrk, 2 threads, keep-alive, loopback", "tls": tls,
        "how": " ".join(__doc__.split("\n\n")[1].split()), "storage": " ".join(common.BenchStack.__doc__.split()),
        "express": "one process, as the old system ran it", "gatewayThreads": 96})


if __name__ == "__main__":
    main()
