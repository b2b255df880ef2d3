"""What the benchmarks share: a private stack with a durable PostgreSQL, figures about the machine, results as a table
and as JSON. No host names or paths are written down, so that a result can be committed."""
import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

import harness  # noqa: E402

RESULTS = HERE / "results"


class BenchStack(harness.Stack):
    """The integration tests' stack, but with an fsync at each commit: "accepted" must mean the same for everybody.

    storage "disk": the temporary folder; "memory": a folder in memory, where an fsync costs nothing, for what the
    programs themselves cost (and a stand-in for a disk with a protected write cache)."""

    def __init__(self, env=None, storage="disk"):
        settings = {"LOG_LEVEL": "error", "JOB_LEASE": "30000", "JOB_BACKOFF": "2000"}
        settings.update(env or {})
        before = tempfile.tempdir
        tempfile.tempdir = "/dev/shm" if storage == "memory" else before
        try:
            super().__init__(workers=0, env=settings)
        finally:
            tempfile.tempdir = before

    def start_postgres(self):
        super().start_postgres()
        if "fsync=off" in self.postgres.argv:
            self.postgres.stop(harness.signal.SIGINT)
            self.postgres.argv = ["fsync=on" if a == "fsync=off" else a for a in self.postgres.argv]
            self.postgres.argv += ["-c", "max_connections=200", "-c", "shared_buffers=256MB"]
            self.postgres.start()
            harness.wait_until(lambda: self.sql("SELECT 1"), 30, "PostgreSQL's start")

    @property
    def database_url(self):
        return self.daemon_env()["DATABASE_URL"]

    @property
    def redis_url(self):
        return self.daemon_env()["REDIS_URL"]

    def redis_info(self):
        """Redis's own figures: CPU seconds, bytes."""
        text = self.redis_cli("INFO", "all")
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def redis_cpu(self):
        info = self.redis_info()
        return float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small numbers, once: shows that it runs, measures nothing")
    parser.add_argument("--repeat", type=int, help="repetitions of each measurement")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file to write (default: tests/bench/results, with --quick in the build folder)")
    return parser


def node_modules():
    """Installs what the comparison needs, as locked. Not by `npm ci`: npm 11 refuses a lock file without the
    optional binaries of other systems, even the one that it has just written itself."""
    if not (HERE / "node_modules" / "bullmq").exists():
        subprocess.run(["npm", "install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"], cwd=HERE, check=True)


def _output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    except OSError:
        return ""


def _package(name):
    path = HERE / "node_modules" / name / "package.json"
    return json.loads(path.read_text())["version"] if path.exists() else None


def cpu_times():
    """(busy, all) seconds of all cores so far."""
    ticks = [int(x) for x in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    hz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / hz, sum(ticks) / hz


def others_load(seconds=3.0):
    """Share of the machine (0..1) that other programs take while this one sleeps."""
    busy, total = cpu_times()
    time.sleep(seconds)
    busy2, total2 = cpu_times()
    return (busy2 - busy) / max(total2 - total, 1e-9)


def machine():
    cpu = re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    load = others_load()
    return {
        "cpu": cpu.group(1) if cpu else platform.machine(), "cores": len(os.sched_getaffinity(0)),
        "memoryGiB": round(int(memory.group(1)) / 2**20, 1), "kernel": platform.release().split("-")[0],
        "loadByOthersBefore": round(load, 3), "quiet": load < 0.05,
    }


def versions():
    node = _output("node", "--version").lstrip("v")
    return {
        "spheroseg": _output("git", "-C", str(HERE), "describe", "--always", "--dirty"),
        "redis": (re.search(r"v=([\d.]+)", _output("redis-server", "--version")) or [None, None])[1],
        "postgresql": (re.search(r"([\d.]+)", _output(str(harness._pg_bin() / "postgres"), "--version")) or [0, None])[1],
        "node": node, "bullmq": _package("bullmq"), "ioredis": _package("ioredis"), "express": _package("express"),
        "pg": _package("pg"),
    }


def spread(values):
    """Median with all raw values, so that a reader sees how steady it was."""
    return {"median": statistics.median(values), "values": [round(v, 6) for v in values]}


def percentile(values, p):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * p // 100) - 1))] if ordered else None


def rss_bytes(pid):
    """Resident memory of a process and its children."""
    total = 0
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if int(status.parent.name) == pid or f"PPid:\t{pid}\n" in text:
            found = re.search(r"VmRSS:\s*(\d+)", text)
            total += int(found.group(1)) * 1024 if found else 0
    return total


def print_table(title, head, rows):
    rows = [[("" if c is None else c if isinstance(c, str) else f"{c:,.3g}" if abs(c) < 100 else f"{c:,.0f}")
             for c in row] for row in rows]
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    print(f"\n{title}")
    for r in [head, ["-" * w for w in widths], *rows]:
        print("  " + "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))))
    sys.stdout.flush()


def target(name, value, bound, at_least=True, unit=""):
    met = value >= bound if at_least else value <= bound
    return {"target": name, "value": round(value, 4), "bound": bound, "direction": ">=" if at_least else "<=",
            "unit": unit, "met": met}


def print_targets(targets):
    for t in targets:
        word = "met" if t["met"] else "NOT MET"
        print(f"  {word:8} {t['target']}: {t['value']:,.4g} {t['unit']} (wanted {t['direction']} {t['bound']:,.4g})")
    sys.stdout.flush()


def write(name, args, before, figures, targets, conditions):
    after = others_load(1.0)
    before["loadByOthersAfter"] = round(after, 3)
    before["quiet"] = before["quiet"] and after < 0.05
    result = {"benchmark": name, "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
              "quick": args.quick, "machine": before, "versions": versions(), "conditions": conditions,
              "targets": targets, "figures": figures}
    path = args.output or (harness.BUILD / "bench" if args.quick else RESULTS) / f"{name}.json"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print_targets(targets)
    if not before["quiet"]:
        print("  The machine was not quiet: other programs ran; compare ratios, not absolute figures.")
    return result
