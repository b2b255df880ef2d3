"""What one more worker costs, for the capacity table of scripts/README.md: memory, connections and, with nothing to do, what
it asks of PostgreSQL and Redis; and how many images a second one worker with one thread segments.

The idle cost is measured with few and with many workers; the slope between them is what one more takes.
"""
import pathlib
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import common  # noqa: E402
import images  # noqa: E402
from api import Client  # noqa: E402

SIZES = {"nuclei": (256, 512), "spheroid": (512, 1024), "phase_contrast": (512,), "classical_nuclei": (512,), "classical": (512,)}


def memory(pid):
    """Bytes that are its own alone, and bytes in all with its share of what others use as well."""
    fields = dict(line.split(":") for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    number = lambda name: int(fields[name].split()[0]) * 1024  # noqa: E731
    return {"private": number("Private_Clean") + number("Private_Dirty"), "proportional": number("Pss"), "resident": number("Rss")}


def snapshot(stack):
    info = stack.redis_info()
    commits = stack.sql("SELECT sum(xact_commit) FROM pg_stat_database")[0][0]
    hz = common.os.sysconf("SC_CLK_TCK")
    cpu = 0.0
    for worker in stack.workers:
        fields = pathlib.Path(f"/proc/{worker.popen.pid}/stat").read_text().rsplit(")", 1)[1].split()
        cpu += (int(fields[11]) + int(fields[12])) / hz
    return time.monotonic(), float(commits), float(info["total_commands_processed"]), stack.redis_cpu(), cpu


def idle(stack, seconds):
    before = snapshot(stack)
    time.sleep(seconds)
    after = snapshot(stack)
    span = after[0] - before[0]
    connections = dict(stack.sql("SELECT application_name, count(*) FROM pg_stat_activity WHERE application_name <> '' GROUP BY 1"))
    held = [memory(w.popen.pid) for w in stack.workers]
    middle = lambda name: sorted(m[name] for m in held)[len(held) // 2]  # noqa: E731
    return {
        "workers": len(stack.workers),
        "postgresConnections": connections.get("segworker", 0),
        "redisConnections": int(stack.redis_info()["connected_clients"]),
        "postgresCommitsPerSecond": round((after[1] - before[1]) / span, 2),
        "redisCommandsPerSecond": round((after[2] - before[2]) / span, 2),
        "redisCpuShare": round((after[3] - before[3]) / span, 5),
        "workersCpuShare": round((after[4] - before[4]) / span, 5),
        "workerBytes": {name: middle(name) for name in ("private", "proportional", "resident")},
    }


def per_worker(few, many):
    n = many["workers"] - few["workers"]
    keys = ("postgresConnections", "redisConnections", "postgresCommitsPerSecond", "redisCommandsPerSecond", "redisCpuShare", "workersCpuShare")
    return {key: round((many[key] - few[key]) / n, 5) for key in keys}


def rates(stack, number):
    """Images a second of one worker, from submit to result, its queue never empty; and its memory at most."""
    out = {}
    person = Client(stack).register()
    project = person.project()
    for model, sides in SIZES.items():
        for side in sides:
            count = max(3, side * side // 12000)
            pictures = [images.png(images.nuclei(width=side, height=side, count=count, seed=n)[0]) for n in range(number)]
            uploaded = [person.upload(project, p, f"{model}{side}-{n}.png").json for n, p in enumerate(pictures)]
            warm = person.segment(uploaded[0], model=model, threshold=0.4)["jobId"]
            assert person.wait_job(warm)["state"] == "completed"
            start = time.monotonic()
            jobs = [person.segment(image, model=model)["jobId"] for image in uploaded]
            busiest, over = [0], threading.Event()

            def watch(seen=busiest, over=over):
                while not over.wait(0.1):
                    seen[0] = max(seen[0], stack.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'segworker'")[0][0])
            watcher = threading.Thread(target=watch)
            watcher.start()
            for job in jobs:
                assert person.wait_job(job)["state"] == "completed"
            seconds = time.monotonic() - start
            over.set()
            watcher.join()
            out[f"{model} {side}x{side}"] = {"imagesPerSecond": round(number / seconds, 3), "images": number, "postgresConnectionsAtMost": busiest[0]}
    peak = pathlib.Path(f"/proc/{stack.workers[0].popen.pid}/status").read_text()
    out["peakBytes"] = int(peak.split("VmHWM:")[1].split()[0]) * 1024
    return out


def main():
    args = common.arguments(__doc__.split("\n\n")[0]).parse_args()
    before = common.machine()
    few, many, seconds, number = (1, 3, 2, 2) if args.quick else (2, 40, 12, 8)
    figures = {}
    stack = common.BenchStack(env={"SEGWORKER_MODELS": "classical_nuclei"})
    try:
        stack.start_postgres()
        stack.start_redis()
        stack.start_gateway()
        for name, workers in (("few", few), ("many", many)):
            while len(stack.workers) < workers:
                stack.add_worker(wait=False)
            for worker in stack.workers:
                stack._ready(worker, worker.metrics_port, 120)
            time.sleep(3)
            figures[name] = idle(stack, seconds)
        figures["perWorker"] = per_worker(figures["few"], figures["many"])
    finally:
        stack.stop()
    stack = common.BenchStack()
    try:
        stack.start_postgres()
        stack.start_redis()
        stack.start_gateway()
        stack.add_worker()
        time.sleep(1)
        figures["allModelsIdle"] = idle(stack, 1)["workerBytes"]
        figures["oneWorkerOneThread"] = rates(stack, number)
    finally:
        stack.stop()
    each = figures["perWorker"]
    common.print_table("One more worker, idle", ["", "per worker"], [[k, v] for k, v in each.items()])
    common.print_table("One worker, one thread", ["", "images/s"], [[k, v["imagesPerSecond"]] for k, v in figures["oneWorkerOneThread"].items() if isinstance(v, dict)])
    return common.write("scale", args, before, figures, [], {
        "few": few, "many": many, "seconds": seconds, "images": number,
        "idle": "workers with the model classical_nuclei only, so that many fit into this machine; what they ask of the servers does not depend on the model",
        "rates": "drawn nuclei, SEGWORKER_THREADS=1, QUEUE_CONCURRENCY=1, gateway, PostgreSQL (fsync) and Redis on the same machine"})


if __name__ == "__main__":
    main()
