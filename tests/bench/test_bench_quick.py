"""The benchmarks run and yield numbers. Whether the numbers are good is not for a test on a busy machine to say."""
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = pathlib.Path(os.environ.get("SPHEROSEG_BUILD", ROOT / "build")).resolve()


@pytest.fixture(scope="module", autouse=True)
def programs():
    subprocess.run(["make", "-s", f"BUILD={os.path.relpath(BUILD, ROOT)}", "bench-programs"], cwd=ROOT, check=True)


def numbers(value):
    """Every number in a result."""
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers(v)]
    if isinstance(value, list):
        return [n for v in value for n in numbers(v)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def run(script, path):
    done = subprocess.run([sys.executable, HERE / script, "--quick", "--output", path], capture_output=True, text=True,
                          timeout=480, env={**os.environ, "SPHEROSEG_BUILD": str(BUILD)})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads(path.read_text())
    assert result["quick"] and result["machine"]["cores"] >= 1 and result["versions"]["redis"]
    assert all(n >= 0 for n in numbers(result["figures"]))
    assert all(t["target"] in done.stdout for t in result["targets"])
    for private in (os.uname().nodename, str(ROOT)):
        assert private not in path.read_text()
    return result["figures"]


def test_queue(tmp_path):
    f = run("queue/bench_queue.py", tmp_path / "queue.json")
    for test, systems in f["rates"].items():
        assert all(kinds["jobsPerSecond"]["median"] > 0 for kinds in systems.values()), test
        assert "redis" in systems
    assert set(f["dispatchUs"]) == {"redis", "full", "memory", "bullmq"}
    assert all(v["p50"]["median"] > 0 for v in f["dispatchUs"].values())
    assert all(v["median"] > 0 for v in f["redisBytesPerWaitingJob"].values())


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_submit(tmp_path):
    f = run("submit/bench_submit.py", tmp_path / "submit.json")
    for loads in f.values():
        for load in loads.values():
            for name in ("gateway", "express"):
                assert load["most"][name]["rssBytes"]["median"] > 0
                # the rate that was asked for is the rate that came (a busy machine may keep less)
                assert 0.3 * load["rate"] < load["equal"][name]["requestsPerSecond"]["median"] < 1.2 * load["rate"]


def test_websocket(tmp_path):
    f = run("websocket/bench_websocket.py", tmp_path / "websocket.json")
    assert f["twoGateways"]["sameEventsInSameOrder"]
    for name in ("many", "all", "manyWithFloodAndResets"):
        assert f[name]["deliveries"] > 0 and f[name]["missing"] == 0


def test_worker(tmp_path):
    for package in ("skimage", "cv2", "torch"):
        pytest.importorskip(package)
    f = run("worker/bench_worker.py", tmp_path / "worker.json")
    for n, post in f["postProcessing"].items():
        assert post["smooth"]["worstIoU"] >= 0.98 and post["smooth"]["points"] >= 3 * int(n)
        assert post["openCvSeconds"]["median"] > 0 and post["scikitImageSecondsPerObject"]["median"] > 0
    e = f["endToEnd"]
    assert abs(e["ours"]["objects"] - e["python"]["objects"]) <= 0.1 * e["ours"]["objects"] > 0
    assert set(e["ours"]["stages"]) >= {"decode", "infer", "polygons", "measure"} and e["python"]["peakBytes"]["median"] > 0
    assert set(f["scaling"]["byWorkers"]) == {"1", "2"}
    for model in ("classical_nuclei", "nuclei"):
        sizes = f["scaling"]["bySize"][model]
        assert sizes and all(v["objects"] > 0 and v["secondsPerMegapixel"]["median"] > 0 for v in sizes.values())
