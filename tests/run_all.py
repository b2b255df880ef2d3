#!/usr/bin/python3
"""Runs the suites one after the other and adds up what they say.

usage: tests/run_all.py [--build DIR] [--sanitized DIR] [SUITE…]
Suites: scripts, unit, unit-sanitized, ui, integration, integration-sanitized, formats, formats-sanitized,
model, chaos, bench, ops, e2e; all of them when none is
named. `make test-ops` runs what needs a Docker engine besides.
Ends with a table and one line "N passed, N failed, N skipped"; the exit status is 0 only when nothing failed.
A suite that runs no test, or whose program ends badly without naming a failed test, counts as failed.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parents[1]
LANES = 3        # these tests mostly wait: for leases that run out, for servers that start
AGAIN_MAX = 5    # more than these failing is no matter of time
unsteady = []    # tests that failed beside others and passed alone
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Result:
    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped

    def __iadd__(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        return self

    def judge(self, name, status):
        """A bad exit without a failed test, or no test at all, is a failure of its own."""
        if (status != 0 and self.failed == 0) or self.passed + self.failed + self.skipped == 0:
            print(f"!! {name}: exit status {status}, {self.passed} passed", flush=True)
            self.failed += 1
        return self


def run(argv, env=None, cwd=ROOT, timeout=1500, show=True):
    """Runs a command, and shows what it says; returns (status, output)."""
    out = []
    with subprocess.Popen([str(a) for a in argv], env={**os.environ, **(env or {})}, cwd=cwd, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as p:
        end = time.monotonic() + timeout
        for line in p.stdout:
            out.append(line)
            if show:
                sys.stdout.write(line)
                sys.stdout.flush()
            if time.monotonic() > end:
                p.kill()
        status = p.wait()
    return status, "".join(out)


def tap(text):
    """Counts the innermost `ok` / `not ok` lines of TAP output (node prints a line for each file as well)."""
    result = Result()
    for line in ANSI.sub("", text).splitlines():
        m = re.match(r"\s*(not ok|ok)\s+\d+\b(.*)", line)
        if not m:
            continue
        if "# SKIP" in m[2].upper():
            result.skipped += 1
        elif m[1] == "ok":
            result.passed += 1
        else:
            result.failed += 1
    return result


def unit(build, sanitized):
    env = {"CMOCKA_MESSAGE_OUTPUT": "TAP"}
    if sanitized:
        env |= {"ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1:allocator_may_return_null=1",
                "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
                "LSAN_OPTIONS": f"suppressions={ROOT}/tests/lsan.supp:print_suppressions=0"}
    total = Result()
    programs = sorted(p for p in (build / "unit").rglob("test_*") if os.access(p, os.X_OK) and p.is_file())
    # Each has servers of its own and mostly waits for them: one per core runs beside the others.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for program, (status, out) in zip(programs, pool.map(lambda p: run([p], env, timeout=300, show=False), programs)):
            print(f"## {program.relative_to(build)}\n{out}", end="", flush=True)
            total += tap(out).judge(program.name, status)
    return total.judge("unit", 0)


def read_report(report):
    """What a JUnit file counts, and pytest's names of the failed tests."""
    result, failed = Result(), []
    if report.exists():
        for suite in ET.parse(report).getroot().iter("testsuite"):
            total, bad, skipped = int(suite.get("tests")), int(suite.get("failures")) + int(suite.get("errors")), int(suite.get("skipped"))
            result += Result(total - bad - skipped, bad, skipped)
            failed += [f"{case.get('classname').replace('.', '/')}.py::{case.get('name')}" for case in suite.iter("testcase")
                       if case.find("failure") is not None or case.find("error") is not None]
    return result, failed


def pytest(build, folder, *options, lanes=1):
    """Runs the tests of a folder, in `lanes` files at a time. Beside others a test may miss its time: what failed so is
    tried again, alone. What fails then has failed; what does not is named at the end, for those who look after the tests."""
    report = build / "pytest.xml"
    argv = ["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=8", f"--junitxml={report}"]
    env = {"SPHEROSEG_BUILD": str(build), "PYTHONDONTWRITEBYTECODE": "1"}
    beside = ["-n", str(lanes), "--dist", "loadfile"] if lanes > 1 else []
    report.unlink(missing_ok=True)
    status, _ = run([*argv, *beside, *options, ROOT / folder], env)
    result, failed = read_report(report)
    if lanes > 1 and status == 1 and 0 < len(failed) <= AGAIN_MAX:
        print(f"-- again, alone: {' '.join(failed)}", flush=True)
        report.unlink(missing_ok=True)
        status, _ = run([*argv, *failed], env)
        again, still = read_report(report)
        result = Result(result.passed + again.passed, again.failed, result.skipped + again.skipped).judge(folder, status)
        unsteady.extend(sorted(set(failed) - set(still)))
        return result
    return result.judge(folder, status)


def scripts(_build):
    """Shell scripts: syntax, shellcheck where it is installed, and that each answers --help."""
    result = Result()
    files = [f for pattern in ("scripts/*.sh", "scripts/lib/*.sh", "k8s/*.sh", "tests/ops/*.sh") for f in sorted(ROOT.glob(pattern))]
    files.append(ROOT / ".ci/run")
    for f in files:
        ok = run(["bash", "-n", f])[0] == 0
        result += Result(ok, not ok)
    if any((pathlib.Path(d) / "shellcheck").exists() for d in os.environ["PATH"].split(":")):
        ok = run(["shellcheck", "-x", *files])[0] == 0
        result += Result(ok, not ok)
    else:
        print("shellcheck is not installed: skipped")
        result += Result(skipped=1)
    for f in sorted(ROOT.glob("scripts/*.sh")):
        status, out = run([f, "--help"])
        ok = status == 0 and "usage:" in out
        result += Result(ok, not ok)
    return result.judge("scripts", 0)


def ui(build):
    total = Result()
    for command in (["npm", "run", "--silent", "typecheck"], ["npm", "test", "--silent"]):
        status, out = run(command, cwd=ROOT / "gateway/ui")
        counted = tap(out)
        m = re.search(r"Tests\s+(?:(\d+) failed \| )?(\d+) passed", ANSI.sub("", out))
        if m:  # vitest
            counted = Result(int(m[2]), int(m[1] or 0))
        if counted.passed + counted.failed == 0:
            counted = Result(status == 0, status != 0)
        total += counted.judge(" ".join(command), status)
    return total


def model(build):
    """The job engine's model under spin, and its scripts against a reference model."""
    status, out = run([ROOT / "tests/model/run.sh", "--quick"])
    total = tap(out).judge("tests/model/run.sh", status)
    total += pytest(build, "tests/model", "-s")
    return total


def e2e(build):
    status, out = run(["/usr/bin/python3", ROOT / "tests/e2e/run.py"], {"SPHEROSEG_BUILD": str(build), "PYTHONDONTWRITEBYTECODE": "1"})
    return tap(out).judge("e2e", status)


def ops(build):
    """What operators use, as far as it can be tried without a Docker engine: alert rules, dashboards, manifests, scripts."""
    status, _ = run([ROOT / "compose/grafana/make_dashboards.py", "--check"])
    total = Result(status == 0, status != 0)
    total += pytest(build, "tests/ops", "-k", "test_rules or test_k8s or test_dockerfiles")
    if any((pathlib.Path(d) / "bats").exists() for d in os.environ["PATH"].split(":")):
        status, out = run(["bats", "--tap", ROOT / "tests/ops/bats"])
        total += tap(out).judge("bats", status)
    else:
        print("bats is not installed: skipped")
        total += Result(skipped=1)
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--sanitized", type=pathlib.Path, default=ROOT / "build-asan")
    parser.add_argument("suites", nargs="*")
    a = parser.parse_args()
    a.build, a.sanitized = a.build.resolve(), a.sanitized.resolve()
    suites = {
        "scripts": lambda: scripts(a.build),
        "unit": lambda: unit(a.build, False),
        "unit-sanitized": lambda: unit(a.sanitized, True),
        "ui": lambda: ui(a.build),
        "integration": lambda: pytest(a.build, "tests/integration", lanes=LANES),
        # The daemons under ASan and UBSan: any finding ends the process, which fails the test that caused it.
        "integration-sanitized": lambda: pytest(a.sanitized, "tests/integration", "-k",
                                                "auth or bad_input or security or websocket or contract", lanes=LANES),
        "formats": lambda: pytest(a.build, "tests/formats"),
        "formats-sanitized": lambda: pytest(a.sanitized, "tests/formats", "-k", "planes or hostile"),
        "model": lambda: model(a.build),
        "chaos": lambda: pytest(a.build, "tests/chaos", "-s"),  # two minutes of random faults among them
        "bench": lambda: pytest(a.build, "tests/bench"),  # only that they run
        "ops": lambda: ops(a.build),
        "e2e": lambda: e2e(a.build),
    }
    total, rows = Result(), []
    chosen = a.suites or list(suites)
    for name in chosen:
        if name not in suites:
            parser.error(f"there is no suite {name}")
        print(f"\n==== {name}", flush=True)
        start = time.monotonic()
        result = suites[name]()
        rows.append((name, result, time.monotonic() - start))
        total += result
    print("\nsuite                    passed  failed  skipped  seconds")
    for name, r, seconds in rows:
        print(f"{name:<24} {r.passed:6} {r.failed:7} {r.skipped:8} {seconds:8.0f}")
    for name in unsteady:
        print(f"passed only alone: {name}")
    print(f"\n{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
