"""The segmentation engine against the usual Python stack (PyTorch, scikit-image, OpenCV), from Debian's packages.

(a) Post-processing alone on the same label images with 10, 1,000 and 100,000 objects, a quarter of them with a hole, one
thread each. Against scikit-image: outlines with holes and the measurements both know (ours also makes its others:
narrowest width, inscribed and enclosing circle), regionprops on the whole image and find_contours in each bounding
box. Against OpenCV: outlines only, on the label image itself (int32, RETR_CCOMP, CHAIN_APPROX_SIMPLE); ours as chains of
pixel edges too, which is the same job ("pixel outlines"), and as what the worker stores ("smooth outlines": smoothed,
simplified, checked for crossings and against the pixels), for which OpenCV has no counterpart. For 100,000 objects
scikit-image is timed on a part of the image with a tenth of them. (b) From image files to GeoJSON: segworker run against
python_stack.py, same weights, same threads, taking turns; the start of the program and the loading of the model are taken off by
a run with one image. Bare inference: the model's forward calls on the same tiles in PyTorch. (c) Seconds per megapixel
by image size, and images/s of one worker with all cores against two with half of them each.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))
os.environ.update({f"{n}_NUM_THREADS": "1" for n in ("OMP", "OPENBLAS", "MKL")})

import common  # noqa: E402
import harness  # noqa: E402
import images as pictures  # noqa: E402
import numpy as np  # noqa: E402
import python_stack  # noqa: E402
import shapes  # noqa: E402

MODEL = harness.ROOT / "segworker/models/nuclei"
CORES = len(os.sched_getaffinity(0))
QUIET_ENV = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}


# ---------------------------------------------------------------- (a) post-processing

def ours_post(path, repeat, mode, check=False):
    done = subprocess.run([harness.BUILD / "bench/bench_post", path, str(repeat), mode, *(["check"] if check else [])],
                          capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    result["runs"] = result["runs"][1:] or result["runs"]  # the first pays for memory that the process does not have yet
    for key in ("outlines", "measure"):
        result[key] = common.spread([r[key] for r in result["runs"]])
    result["total"] = common.spread([r["outlines"] + r["measure"] for r in result.pop("runs")])
    return result


def skimage_post(labels, grey):
    """Seconds for outlines and measurements of every object."""
    from skimage.measure import regionprops
    begin = time.perf_counter()
    regions = regionprops(labels, intensity_image=grey)
    for region in regions:
        python_stack.outlines(region)
        python_stack.measured(region)
    return (time.perf_counter() - begin) / len(regions)


def opencv_post(labels):
    import cv2
    cv2.setNumThreads(1)
    copy = labels.copy()
    begin = time.perf_counter()
    cv2.findContours(copy, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return time.perf_counter() - begin


def post_processing(folder, counts, repeat):
    figures = {}
    for count, cell in counts:
        labels, grey = shapes.label_image(count, cell)
        path = folder / "labels.bin"
        shapes.save(path, labels, grey)
        rows = max(1, int(np.sqrt(count / 10))) * cell if count >= 10000 else labels.shape[0]
        f = figures[str(count)] = {"width": labels.shape[1], "height": labels.shape[0]}
        f["smooth"] = ours_post(path, repeat + 1, "smooth", check=True)
        f["pixels"] = ours_post(path, repeat + 1, "cracks")
        f["scikitImageSecondsPerObject"] = common.spread([skimage_post(labels[:rows], grey[:rows]) for _ in range(min(repeat, 3))])
        f["openCvSeconds"] = common.spread([opencv_post(labels) for _ in range(repeat)])
    return figures


def show_post(figures):
    rows, targets = [], []
    for count, f in figures.items():
        n, ours = int(count), f["smooth"]["total"]["median"]
        sk, cv = f["scikitImageSecondsPerObject"]["median"] * n, f["openCvSeconds"]["median"]
        pixels, smooth = f["pixels"]["outlines"]["median"], f["smooth"]["outlines"]["median"]
        rows.append([f"{n:,} objects", ours * 1e3, sk * 1e3, sk / ours, pixels * 1e3, smooth * 1e3, cv * 1e3, cv / pixels,
                     cv / smooth, f["smooth"]["worstIoU"]])
        targets += [common.target(f"outlines and measurements against scikit-image, {n} objects", sk / ours, 20, unit="x"),
                    common.target(f"pixel outlines against OpenCV, {n} objects", cv / pixels, 1, unit="x"),
                    common.target(f"worst IoU of an outline with its pixels, {n} objects", f["smooth"]["worstIoU"], 0.98)]
    common.print_table("Post-processing alone, one thread (ms, median)", [
        "label image", "ours, all", "scikit-image", "times", "pixel outlines", "smooth outlines", "OpenCV", "times, pixel",
        "times, smooth", "worst IoU"], rows)
    return targets


# ---------------------------------------------------------------- (b) end to end

def peak_bytes(pid):
    """The most that a process has had in memory so far; its parent's share before it began does not count."""
    try:
        found = re.search(r"VmHWM:\s*(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
    except OSError:
        found = None
    return int(found.group(1)) * 1024 if found else 0


def timed(command, env):
    """(wall seconds, peak resident bytes, its output)."""
    peak = 0
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=env)
        while process.poll() is None:
            peak = max(peak, peak_bytes(process.pid))
            time.sleep(0.005)
        wall = time.perf_counter() - begin
        out.seek(0)
        err.seek(0)
        text = out.read().decode() + err.read().decode()
    if process.returncode != 0:
        raise RuntimeError(text[-2000:])
    return wall, peak, text


def ours_run(files, out, threads):
    wall, peak, text = timed([harness.BUILD / "segworker", "run", "--model", MODEL, "--threads", str(threads), "--timings",
                              *files, "-o", f"{out}/"], QUIET_ENV)
    stages = {}
    for name, seconds in re.findall(r"^ +(\w+) +([\d.]+) s$", text, re.M):
        stages[name] = stages.get(name, 0) + float(seconds)
    return {"wall": wall, "peakBytes": peak, "stages": stages, "objects": sum(map(int, re.findall(r": (\d+) object", text)))}


def python_run(files, out, threads):
    wall, peak, text = timed([sys.executable, HERE / "python_stack.py", MODEL, out, str(threads), *files], QUIET_ENV)
    result = json.loads([line for line in text.splitlines() if line.startswith("{")][-1])
    return {"wall": wall, "peakBytes": peak, "stages": result["seconds"], "objects": result["objects"]}


BARE = """
import sys, time, torch
sys.path.insert(0, sys.argv[1])
import reference
net, spec = reference.load_model(sys.argv[2])
torch.set_num_threads(int(sys.argv[3]))
h, w, n = map(int, sys.argv[4:])
s = spec["input"]
pad = lambda v: -(-v // s["divisor"]) * s["divisor"]
sizes = [(b - a, d - c) for a, b, *_ in reference.tile_spans(pad(h), s["tile"], s["halo"])
         for c, d, *_ in reference.tile_spans(pad(w), s["tile"], s["halo"])]
tiles = [torch.rand(1, 1, *size) for size in sizes]
with torch.no_grad():
    net(tiles[0])
    net(tiles[0])
    t = time.perf_counter()
    for _ in range(n):
        for tile in tiles:
            net(tile)
print((time.perf_counter() - t) / n)
"""


def bare_inference(size, n, threads):
    text = timed([sys.executable, "-c", BARE, harness.ROOT / "segworker/training", MODEL, str(threads), str(size), str(size),
                  str(n)], QUIET_ENV)[2]
    return float(text.split()[-1])


def make_images(folder, size, n):
    files = []
    for k in range(n):
        files.append(folder / f"s{size}_{k}.png")
        if not files[-1].exists():
            a, _ = pictures.nuclei(512, 512, 70, seed=k + 1)
            a = np.tile(a, (-(-size // 512), -(-size // 512)))[:size, :size]
            files[-1].write_bytes(pictures.png(a))
    return files


def end_to_end(folder, size, n, repeat):
    files, out = make_images(folder, size, n + 1), folder / "out"
    out.mkdir(exist_ok=True)
    runs = {"ours": [], "python": []}
    bare = []
    for _ in range(repeat):
        for name, run in (("ours", ours_run), ("python", python_run)):
            one, many = run(files[:1], out, CORES), run(files, out, CORES)
            runs[name].append({"secondsPerImage": max(many["wall"] - one["wall"], 1e-6) / n, "peakBytes": many["peakBytes"],
                               "objects": many["objects"], "stages": {k: v / (n + 1) for k, v in many["stages"].items()}})
        bare.append(bare_inference(size, n, CORES))
    figures = {"size": size, "images": n, "threads": CORES, "bareInferenceSecondsPerImage": common.spread(bare)}
    for name, rs in runs.items():
        stages = sorted({k for r in rs for k in r["stages"]})
        figures[name] = {"secondsPerImage": common.spread([r["secondsPerImage"] for r in rs]),
                         "peakBytes": common.spread([r["peakBytes"] for r in rs]), "objects": rs[0]["objects"],
                         "stages": {k: common.spread([r["stages"].get(k, 0) for r in rs]) for k in stages}}
    return figures


def show_end_to_end(f):
    bare = f["bareInferenceSecondsPerImage"]["median"]
    rows = [[name, 1 / f[name]["secondsPerImage"]["median"], f[name]["secondsPerImage"]["median"] * 1e3,
             f[name]["secondsPerImage"]["median"] / bare, f[name]["peakBytes"]["median"] / 2**20, f[name]["objects"]]
            for name in ("ours", "python")]
    common.print_table(f"Files to outlines, {f['size']} x {f['size']} px, {f['threads']} threads (bare inference {bare * 1e3:.1f} ms)",
                       ["system", "images/s", "ms/image", "x bare inference", "peak MiB", "objects"], rows)
    names = list(dict.fromkeys([*f["ours"]["stages"], *f["python"]["stages"]]))
    common.print_table("Stages (ms/image)", ["system", *names], [
        [s, *(f[s]["stages"][k]["median"] * 1e3 if k in f[s]["stages"] else None for k in names)] for s in ("ours", "python")])
    ours, python = (f[n]["secondsPerImage"]["median"] for n in ("ours", "python"))
    stages = f["ours"]["stages"]
    share = sum(v["median"] for v in stages.values()) / stages["infer"]["median"]
    return [common.target("images/s against the Python stack", python / ours, 1.5, unit="x"),
            common.target("total time against bare inference in PyTorch", ours / bare, 1.15, False, "x"),
            common.target("all stages against the inference stage", share, 1.15, False, "x")]


# ---------------------------------------------------------------- (c) scaling

def scaling(folder, sizes, size, n):
    figures = {"bySize": {}, "byWorkers": {}}
    out = folder / "out"
    for s in sizes:
        file = make_images(folder, s, 1)
        r = ours_run(file, out, CORES)
        figures["bySize"][str(s)] = {"secondsPerMegapixel": sum(r["stages"].values()) / (s * s / 1e6), "peakBytes": r["peakBytes"],
                                     "stages": r["stages"], "objects": r["objects"]}
        file[0].unlink()
    files = make_images(folder, size, n)
    for workers in (1, 2):
        share = [files[k::workers] for k in range(workers)]
        command = [harness.BUILD / "segworker", "run", "--quiet", "--model", MODEL, "--threads", str(max(1, CORES // workers))]
        begin = time.perf_counter()
        running = [subprocess.Popen([*command, *f, "-o", f"{out}/"], env=QUIET_ENV) for f in share]
        if any([p.wait() for p in running]):
            raise RuntimeError("segworker run failed")
        figures["byWorkers"][str(workers)] = {"imagesPerSecond": len(files) / (time.perf_counter() - begin)}
    return figures


def show_scaling(f):
    common.print_table("By image size", ["side", "s/megapixel", "peak MiB", "objects"], [
        [f"{int(s):,}", v["secondsPerMegapixel"], v["peakBytes"] / 2**20, v["objects"]] for s, v in f["bySize"].items()])
    common.print_table("Workers that share the cores (start included)", ["workers", "images/s"],
                       [[w, v["imagesPerSecond"]] for w, v in f["byWorkers"].items()])


def main():
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("post", "run", "scaling"), help="one part (writes no result file)")
    args = parser.parse_args()
    quick = args.quick
    repeat = args.repeat or (1 if quick else 5)
    machine = common.machine()
    figures, targets = {}, []
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        if args.only in (None, "post"):
            figures["postProcessing"] = post_processing(
                folder, ((10, 64), (100, 32)) if quick else ((10, 256), (1000, 64), (100000, 20)), repeat)
            targets += show_post(figures["postProcessing"])
        if args.only in (None, "run"):
            figures["endToEnd"] = end_to_end(folder, 256 if quick else 512, 2 if quick else 8, 1 if quick else min(repeat, 3))
            targets += show_end_to_end(figures["endToEnd"])
        if args.only in (None, "scaling"):
            figures["scaling"] = scaling(folder, (128, 256) if quick else (512, 1024, 2048, 4096, 8000), 256 if quick else 512,
                                         2 if quick else 16)
            show_scaling(figures["scaling"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.only:
        common.print_targets(targets)
        return
    import cv2
    import skimage
    import torch
    common.write("worker", args, machine, figures, targets, {
        "repetitions": repeat, "how": " ".join(__doc__.split("\n\n")[1].split()), "scikit-image": skimage.__version__,
        "opencv": cv2.__version__, "torch": torch.__version__, "model": "nuclei"})


if __name__ == "__main__":
    main()
