"""The job queue against BullMQ on the same Redis in the same run.

These are measured, in turn in each repetition so that a change of the machine's mood meets all of them:
  redis    the daemons' client and scripts without the rows: what a queue that lives in Redis only has to do. The end of a
           job and the next claim are one call, as they are in BullMQ
  full     the queue as the daemons use it: each step is also fenced by a durable row in PostgreSQL (fsync at commit, its
           data on this disk), enqueue includes the position and the event, process includes claim, commit, both events
  memory   the same with PostgreSQL's data in memory, where an fsync costs nothing: what the programs themselves cost
  bullmq   BullMQ's Queue and Worker, no-op processor, finished jobs removed at once; Redis only

Both sides run equally many jobs at a time. "N workers" are N slots of one of our daemons (threads, which ask together when
they ask at the same time), each running one job at a time, against the better of BullMQ's two forms: one Worker with
concurrency N, and N Workers with concurrency 1, its default. Our slots claim as those of a segworker as it is delivered do, by
the same code and policy (common/queue_ahead.h): one job at a time until eight runs were measured, then, as no-op jobs are quick, up
to 16, which run one after the other; BullMQ's Workers fetch one job for each that they end. "claimed singly" is the same with this
switched off (QUEUE_CLAIM_AHEAD=0): each job costs its own round trip on both sides. "16 each" are slots that run 16 jobs side by side,
and claim and end 16 at a time, against one Worker with concurrency 16 N, or N Workers with concurrency 16. "apart": our N workers do
not know of each other.
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
    def __init__(self, stack, fast):
        self.stack = stack
        self.databases = {"full": stack, "memory": fast}
        self.env = stack.daemon_env()
        self.driver = common.harness.BUILD / "bench" / "bench_queue"

    def ours(self, path, test, n, *k, **env):
        if path in self.databases:
            return self._run([self.driver, "full", test, n, *k], DATABASE_URL=self.databases[path].database_url, **env)
        return self._run([self.driver, path, test, n, *k], **env)

    def bullmq(self, test, n, *k):
        return self._run(["node", common.HERE / "queue" / "bullmq.mjs", test, n, *k])

    def _run(self, argv, **env):
        done = subprocess.run([str(a) for a in argv], env={**self.env, **env}, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"{argv}: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def flush(self):
        self.stack.redis_cli("FLUSHALL")
        self.stack.redis_cli("MEMORY", "PURGE")

    def rows(self, what, n):
        """n images, each with one queued job that no list holds yet."""
        sql = self.databases[what].sql
        sql("TRUNCATE users CASCADE")
        sql("INSERT INTO users (id, email, password_hash) VALUES (%s, 'bench@example.org', '-')", USER)
        sql("INSERT INTO projects (id, owner_id, title) VALUES (%s, %s, 'bench')", PROJECT, USER)
        sql(
            "INSERT INTO images (id, project_id, name, format, byte_size, sha256, storage_key, width, height, "
            "bit_depth, channels) SELECT ('00000000-0000-4000-a000-' || lpad(i::text, 12, '0'))::uuid, %s, 'i' || i, "
            "'png', 1, decode(repeat('00', 32), 'hex'), 'k' || i, 1, 1, 8, 1 FROM generate_series(1, %s) i", PROJECT, n)
        sql(
            "INSERT INTO jobs (id, user_id, project_id, image_id, model, batch_id) SELECT "
            "('00000000-0000-4000-9000-' || lpad(i::text, 12, '0'))::uuid, %s, %s, "
            "('00000000-0000-4000-a000-' || lpad(i::text, 12, '0'))::uuid, 'bench', %s FROM generate_series(1, %s) i",
            USER, PROJECT, BATCH, n)
        sql("UPDATE images SET latest_job_id = j.id FROM jobs j WHERE j.image_id = images.id")
        sql("VACUUM ANALYZE jobs")

    # ---- one measurement each: jobs per second, and Redis's CPU in microseconds per job ----

    def rate(self, run, n):
        before = self.stack.redis_cpu()
        answer = run()
        cpu = self.stack.redis_cpu() - before
        return answer["jobs"] / answer["seconds"], cpu * 1e6 / n

    def enqueue(self, what, test, n, k):
        self.flush()
        if what in self.databases:
            self.rows(what, n)
        return self.rate((lambda: self.bullmq(test, n, k)) if what == "bullmq" else
                         (lambda: self.ours(what, test, n, k)), n)

    def process(self, what, n, workers, each=1, form="process", singly=False):
        """form: "apart" or, of BullMQ, "processes" for workers of their own. singly: our slots claim one job at a time."""
        self.flush()
        if what == "bullmq":
            self.bullmq("bulk", n, 1)
            return self.rate(lambda: self.bullmq(form, n, *([workers, each] if form == "processes" else [workers * each])), n)
        if what in self.databases:
            self.rows(what, n)
        self.ours(what, "bulk", n, 1)
        batch = each if each > 1 else 0   # 0: the daemon's policy
        env = {"QUEUE_CLAIM_AHEAD": "0"} if singly else {}
        return self.rate(lambda: self.ours(what, form, n, workers, batch, **env), n)

    def dispatch(self, what, n, gap_ms):
        self.flush()
        if what in self.databases:
            self.rows(what, n)
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


SYSTEMS = ("redis", "full", "memory", "bullmq")
# name, workers, jobs that each runs at a time
PROCESS = (("process, 1 worker", 1, 1), ("process, 8 workers", 8, 1), ("process, 1 worker, 16 each", 1, 16),
           ("process, 8 workers, 16 each", 8, 16))
SINGLY = " claimed singly"


def measure(bench, sizes, repeat):
    """{test: {system: {"jobsPerSecond": [...], "redisCpuUs": [...]}}} and the raw latencies."""
    rates, latency, memory = {}, {s: [] for s in SYSTEMS}, {"redis": [], "bullmq": []}

    def note(test, system, result):
        slot = rates.setdefault(test, {}).setdefault(system, {"jobsPerSecond": [], "redisCpuUs": []})
        slot["jobsPerSecond"].append(result[0])
        slot["redisCpuUs"].append(result[1])

    for _ in range(repeat):
        for system in SYSTEMS:
            n = sizes.get(system, sizes["jobs"])
            note("enqueue one by one", system, bench.enqueue(system, "enqueue", n, 1))
            note("enqueue, 8 at a time", system, bench.enqueue(system, "enqueue", n, 8))
            note("enqueue in bulk", system, bench.enqueue(system, "bulk", n, 1))
            for name, workers, each in PROCESS:
                note(name, system, bench.process(system, n, workers, each))
                if each == 1 and system != "bullmq":
                    note(name + SINGLY, system, bench.process(system, n, workers, singly=True))
            latency[system].append(bench.dispatch(system, sizes["dispatch"], 5))
        for name, workers, each in PROCESS:
            if workers > 1:
                note(name, "bullmqProcesses", bench.process("bullmq", sizes["jobs"], workers, each, "processes"))
        note("process, 8 workers apart", "redis", bench.process("redis", sizes["jobs"], 8, 1, "apart"))
        for system in memory:
            memory[system].append(bench.memory(system, sizes["waiting"]))
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
        test = test.removesuffix(" apart").removesuffix(SINGLY)
        other = "bullmqProcesses" if rate(test, "bullmqProcesses") > rate(test, "bullmq") else "bullmq"
        return rate(test, other, kind)

    head = ["test", "ours, Redis only", "with PostgreSQL on disk", "with PostgreSQL in memory", "BullMQ"]
    rows = [[t, rate(t, "redis"), rate(t, "full") or None, rate(t, "memory") or None, best(t), rate(t, "redis") / best(t),
             rate(t, "memory") / best(t) or None] for t in figures["rates"]]
    common.print_table("Jobs per second (median)", [*head, "Redis only / BullMQ", "in memory / BullMQ"], rows)
    rows = [[t, *(rate(t, s, "redisCpuUs") or None for s in SYSTEMS[:3]), best(t, "redisCpuUs")] for t in figures["rates"]]
    common.print_table("Redis CPU per job, microseconds", head, rows)
    rows = [[s, *(figures["dispatchUs"][s][p]["median"] / 1000 for p in ("p50", "p99", "p100"))] for s in SYSTEMS]
    common.print_table("Dispatch to an idle worker, ms", ["system", "p50", "p99", "max"], rows)
    rows = [[s, v["median"], v["median"] * 10000 / 2**20] for s, v in figures["redisBytesPerWaitingJob"].items()]
    common.print_table("Redis memory of waiting jobs", ["system", "bytes per job", "MiB per 10,000"], rows)
    targets = [common.target(f"no-op jobs/s against BullMQ, {name.removeprefix('process, ')}, "
                             f"{workers * each} executing at a time on both sides"
                             f"{', ours claims ahead by its own policy' if each == 1 else ''}", rate(name, "redis") / best(name), 4, unit="x")
               for name, workers, each in PROCESS]
    targets += [common.target(f"Redis CPU per job against BullMQ, {name.removeprefix('process, ')}",
                              rate(name, "redis", "redisCpuUs") / best(name, "redisCpuUs"), 1, False, "x")
                for name, _, _ in PROCESS]
    for system, words in (("redis", "Redis only"), ("full", "with PostgreSQL on disk"),
                          ("memory", "with PostgreSQL in memory")):
        targets.append(common.target(f"dispatch p99 at idle, {words}",
                                     figures["dispatchUs"][system]["p99"]["median"] / 1000, 5, False, "ms"))
    return targets


def main():
    parser = common.arguments(__doc__.splitlines()[0])
    args = parser.parse_args()
    common.node_modules()
    sizes = {"jobs": 300, "full": 50, "memory": 100, "dispatch": 20, "waiting": 1000} if args.quick else \
            {"jobs": 20000, "full": 1000, "memory": 5000, "dispatch": 300, "waiting": 10000}
    repeat = args.repeat or (1 if args.quick else 3)
    machine = common.machine()
    stack, fast = common.BenchStack(), common.BenchStack(storage="memory")
    try:
        stack.start_redis()
        for s in (stack, fast):
            s.start_postgres()
            subprocess.run([common.harness.BUILD / "gateway", "migrate", "up"], env=s.daemon_env(), check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        figures = summarise(*measure(Bench(stack, fast), sizes, repeat))
    finally:
        stack.stop()
        fast.stop()
    targets = show(figures)
    common.write("queue", args, machine, figures, targets, {
        **sizes, "repetitions": repeat, "redis": "one server, no persistence, loopback TCP",
        "postgresql": "fsync at commit, loopback TCP", "paths": " ".join(__doc__.split("\n\n")[1].split())})


if __name__ == "__main__":
    main()
