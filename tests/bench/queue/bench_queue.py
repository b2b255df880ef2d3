"""The job queue against BullMQ on the same Redis in the same run.

Three things are measured, in turn in each repetition so that a change of the machine's mood meets all of them:
  redis    our Lua scripts alone (enqueue, claim, release): what a queue that lives in Redis only has to do
  full     the queue as the daemons use it: each step is also fenced by a durable row in PostgreSQL (fsync at commit),
           enqueue includes the position and the event, process includes claim, commit and both events
  bullmq   BullMQ's Queue and Worker, no-op processor, finished jobs removed at once; Redis only

BullMQ's own form for several workers in one process is one Worker with a concurrency; several Workers are measured too
and the better of the two counts.
"""
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import common  # noqa: E402

USER = "00000000-0000-4000-8000-000000000001"
PROJECT = "00000000-0000-4000-8000-000000000002"
BATCH = "00000000-0000-4000-8000-0000000000ba"


class Bench:
    def __init__(self, stack):
        self.stack = stack
        self.env = stack.daemon_env()
        self.driver = common.harness.BUILD / "bench" / "bench_queue"

    def ours(self, path, test, n, k):
        return self._run([self.driver, path, test, n, k])

    def bullmq(self, test, n, k):
        return self._run(["node", common.HERE / "queue" / "bullmq.mjs", test, n, k])

    def _run(self, argv):
        done = subprocess.run([str(a) for a in argv], env=self.env, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"{argv}: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def flush(self):
        self.stack.redis_cli("FLUSHALL")
        self.stack.redis_cli("MEMORY", "PURGE")

    def rows(self, n):
        """n images, each with one queued job that no list holds yet."""
        self.stack.sql("TRUNCATE users CASCADE")
        self.stack.sql("INSERT INTO users (id, email, password_hash) VALUES (%s, 'bench@example.org', '-')", USER)
        self.stack.sql("INSERT INTO projects (id, owner_id, title) VALUES (%s, %s, 'bench')", PROJECT, USER)
        self.stack.sql(
            "INSERT INTO images (id, project_id, name, format, byte_size, sha256, storage_key, width, height, "
            "bit_depth, channels) SELECT ('00000000-0000-4000-a000-' || lpad(i::text, 12, '0'))::uuid, %s, 'i' || i, "
            "'png', 1, decode(repeat('00', 32), 'hex'), 'k' || i, 1, 1, 8, 1 FROM generate_series(1, %s) i", PROJECT, n)
        self.stack.sql(
            "INSERT INTO jobs (id, user_id, project_id, image_id, model, batch_id) SELECT "
            "('00000000-0000-4000-9000-' || lpad(i::text, 12, '0'))::uuid, %s, %s, "
            "('00000000-0000-4000-a000-' || lpad(i::text, 12, '0'))::uuid, 'bench', %s FROM generate_series(1, %s) i",
            USER, PROJECT, BATCH, n)
        self.stack.sql("UPDATE images SET latest_job_id = j.id FROM jobs j WHERE j.image_id = images.id")
        self.stack.sql("VACUUM ANALYZE jobs")

    # ---- one measurement each: jobs per second, and Redis's CPU in microseconds per job ----

    def rate(self, run, n):
        before = self.stack.redis_cpu()
        answer = run()
        cpu = self.stack.redis_cpu() - before
        return answer["jobs"] / answer["seconds"], cpu * 1e6 / n

    def enqueue(self, what, test, n, k):
        self.flush()
        if what == "full":
            self.rows(n)
        return self.rate((lambda: self.bullmq(test, n, k)) if what == "bullmq" else
                         (lambda: self.ours(what, test, n, k)), n)

    def process(self, what, n, k, form="process"):
        self.flush()
        if what == "bullmq":
            self.bullmq("bulk", n, 1)
            return self.rate(lambda: self.bullmq(form, n, k), n)
        if what == "full":
            self.rows(n)
        self.ours(what, "bulk", n, 1)
        return self.rate(lambda: self.ours(what, "process", n, k), n)

    def dispatch(self, what, n, gap_ms):
        self.flush()
        if what == "full":
            self.rows(n)
        answer = self.bullmq("dispatch", n, gap_ms) if what == "bullmq" else self.ours(what, "dispatch", n, gap_ms)
        return answer["latenciesUs"]

    def memory(self, what, n):
        """Bytes of Redis per waiting job."""
        self.flush()
        before = int(self.stack.redis_info()["used_memory"])
        if what == "bullmq":
            self.bullmq("bulk", n, 1)
        else:
            self.ours("redis", "bulk", n, 1)
        return (int(self.stack.redis_info()["used_memory"]) - before) / n


SYSTEMS = ("redis", "full", "bullmq")


def measure(bench, sizes, repeat):
    """{test: {system: {"jobsPerSecond": [...], "redisCpuUs": [...]}}} and the raw latencies."""
    rates, latency, memory = {}, {s: [] for s in SYSTEMS}, {"redis": [], "bullmq": []}

    def note(test, system, result):
        slot = rates.setdefault(test, {}).setdefault(system, {"jobsPerSecond": [], "redisCpuUs": []})
        slot["jobsPerSecond"].append(result[0])
        slot["redisCpuUs"].append(result[1])

    for _ in range(repeat):
        for system in SYSTEMS:
            n = sizes["full"] if system == "full" else sizes["jobs"]
            note("enqueue one by one", system, bench.enqueue(system, "enqueue", n, 1))
            note("enqueue, 8 at a time", system, bench.enqueue(system, "enqueue", n, 8))
            note("enqueue in bulk", system, bench.enqueue(system, "bulk", n, 1))
            note("process, 1 worker", system, bench.process(system, n, 1))
            note("process, 8 workers", system, bench.process(system, n, 8))
            latency[system].append(bench.dispatch(system, sizes["dispatch"], 5))
        note("process, 8 workers", "bullmqProcesses", bench.process("bullmq", sizes["jobs"], 8, "processes"))
        for system in memory:
            memory[system].append(bench.memory(system, sizes["memory"]))
    return rates, latency, memory


def summarise(rates, latency, memory):
    figures = {"rates": {t: {s: {k: common.spread(v) for k, v in kinds.items()} for s, kinds in systems.items()}
                         for t, systems in rates.items()},
               "dispatchUs": {s: {f"p{p}": common.spread([common.percentile(run, p) for run in runs])
                                  for p in (50, 99, 100)} for s, runs in latency.items()},
               "redisBytesPerWaitingJob": {s: common.spread(v) for s, v in memory.items()}}
    return figures


def show(figures):
    def rate(test, system, kind="jobsPerSecond"):
        slot = figures["rates"][test].get(system)
        return slot[kind]["median"] if slot else 0.0

    def best(test, kind="jobsPerSecond"):
        other = "bullmqProcesses" if rate(test, "bullmqProcesses") > rate(test, "bullmq") else "bullmq"
        return rate(test, other, kind)

    rows = [[t, rate(t, "redis"), rate(t, "full"), best(t), rate(t, "redis") / best(t), rate(t, "full") / best(t)]
            for t in figures["rates"]]
    common.print_table("Jobs per second (median)",
                       ["test", "ours, Redis only", "ours, with PostgreSQL", "BullMQ", "ratio", "ratio full"], rows)
    rows = [[t, rate(t, "redis", "redisCpuUs"), rate(t, "full", "redisCpuUs"), best(t, "redisCpuUs")]
            for t in figures["rates"]]
    common.print_table("Redis CPU per job, microseconds", ["test", "ours, Redis only", "ours, with PostgreSQL", "BullMQ"],
                       rows)
    rows = [[s, *(figures["dispatchUs"][s][p]["median"] / 1000 for p in ("p50", "p99", "p100"))] for s in SYSTEMS]
    common.print_table("Dispatch to an idle worker, ms", ["system", "p50", "p99", "max"], rows)
    rows = [[s, v["median"], v["median"] * 10000 / 2**20] for s, v in figures["redisBytesPerWaitingJob"].items()]
    common.print_table("Redis memory of waiting jobs", ["system", "bytes per job", "MiB per 10,000"], rows)
    targets = [common.target(f"no-op jobs/s against BullMQ, Redis only, {k}", rate(t, "redis") / best(t), 4, unit="x")
               for k, t in (("1 worker", "process, 1 worker"), ("8 workers", "process, 8 workers"))]
    targets.append(common.target("dispatch p99 at idle, with PostgreSQL",
                                 figures["dispatchUs"]["full"]["p99"]["median"] / 1000, 5, False, "ms"))
    return targets


def main():
    parser = common.arguments(__doc__.splitlines()[0])
    args = parser.parse_args()
    common.node_modules()
    sizes = {"jobs": 300, "full": 100, "dispatch": 20, "memory": 1000} if args.quick else \
            {"jobs": 20000, "full": 5000, "dispatch": 500, "memory": 10000}
    repeat = args.repeat or (1 if args.quick else 5)
    machine = common.machine()
    stack = common.BenchStack()
    try:
        stack.start_postgres()
        stack.start_redis()
        subprocess.run([common.harness.BUILD / "gateway", "migrate", "up"], env=stack.daemon_env(), check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        figures = summarise(*measure(Bench(stack), sizes, repeat))
    finally:
        stack.stop()
    targets = show(figures)
    common.write("queue", args, machine, figures, targets, {
        **sizes, "repetitions": repeat, "redis": "one server, no persistence, loopback TCP",
        "postgresql": "fsync at commit, loopback TCP", "paths": " ".join(__doc__.split("\n\n")[1].split())})


if __name__ == "__main__":
    main()
