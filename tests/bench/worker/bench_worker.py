"""The segmentation engine against the usual Python stack (PyTorch, scikit-image, OpenCV), from Debian's packages.

(a) Post-processing alone on the same label images with 10, 1,000 and 100,000 objects, a quarter of them with a hole, one
thread each. Against scikit-image: outlines with holes and the measurements both know (ours also makes its others:
narrowest width, inscribed and enclosing circle), regionprops on the whole image and find_contours in each bounding
box. Against OpenCV: outlines only, in two ways: findContours on the label image itself (int32, RETR_CCOMP,
CHAIN_APPROX_SIMPLE and CHAIN_APPROX_NONE), and object by object in its bounding box, which is what one needs to know
whose outline it is (SciPy's find_objects, a mask, findContours); ours as chains of pixel edges, which is the same job
("pixel outlines"), and as what the worker stores ("smooth outlines": smoothed, simplified, checked for crossings and
against the pixels), for which OpenCV has no counterpart. For 100,000 objects scikit-image is timed on a part of the image
with a tenth of them. (b) From image files to GeoJSON: segworker run against python_stack.py, same weights, same threads,
taking turns; the start of the program and the loading of the model are taken off by a run with one image. Bare inference:
the model's forward calls on the same tiles in PyTorch. Stage seconds are those spent in each stage: stages of different
images may overlap. (c) Seconds per megapixel by image size: tiled TIFF files of 16 bits, one repeated picture, with a
model without a network and with one; the start (program, libraries, model; "startSeconds") is taken off by a run with a
picture of 64 x 64 px; one image at a time, as many as make 16 megapixels, or 64 without a network. And images/s of one worker
with all cores against two with half of them each, start included.

--only runs one part and puts its figures in the place of the earlier ones in the result file.
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


def opencv_post(labels, approximation):
    """Seconds for the whole label image at once."""
    import cv2
    cv2.setNumThreads(1)
    copy = labels.copy()
    begin = time.perf_counter()
    cv2.findContours(copy, cv2.RETR_CCOMP, approximation)
    return time.perf_counter() - begin


def opencv_by_object(labels):
    """Seconds for each object in its bounding box."""
    import cv2
    from scipy import ndimage
    cv2.setNumThreads(1)
    begin = time.perf_counter()
    for k, box in enumerate(ndimage.find_objects(labels)):
        mask = (labels[box] == k + 1).astype(np.uint8)
        cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(box[1].start, box[0].start))
    return time.perf_counter() - begin


def post_processing(folder, counts, repeat):
    import cv2
    figures = {}
    for count, cell in counts:
        labels, grey = shapes.label_image(count, cell)
        path = folder / "labels.bin"
        shapes.save(path, labels, grey)
        rows = max(1, int(np.sqrt(count / 10))) * cell if count >= 10000 else labels.shape[0]
        f = figures[str(count)] = {"width": labels.shape[1], "height": labels.shape[0], "threads": 1}
        f["smooth"] = ours_post(path, repeat + 1, "smooth", check=True)
        f["pixels"] = ours_post(path, repeat + 1, "cracks")
        f["scikitImageSecondsPerObject"] = common.spread([skimage_post(labels[:rows], grey[:rows]) for _ in range(min(repeat, 3))])
        for name, way in (("openCvSeconds", cv2.CHAIN_APPROX_SIMPLE), ("openCvAllPointsSeconds", cv2.CHAIN_APPROX_NONE)):
            f[name] = common.spread([opencv_post(labels, way) for _ in range(repeat)])
        f["openCvByObjectSeconds"] = common.spread([opencv_by_object(labels) for _ in range(repeat)])
    return figures


def show_post(figures):
    rows, outlines, targets = [], [], []
    for count, f in figures.items():
        n, ours = int(count), f["smooth"]["total"]["median"]
        sk, cv, by_object = f["scikitImageSecondsPerObject"]["median"] * n, f["openCvSeconds"]["median"], f["openCvByObjectSeconds"]["median"]
        pixels, smooth = f["pixels"]["outlines"]["median"], f["smooth"]["outlines"]["median"]
        rows.append([f"{n:,} objects", f["smooth"]["outlines"]["median"] * 1e3, f["smooth"]["measure"]["median"] * 1e3, ours * 1e3,
                     sk * 1e3, sk / ours, f["smooth"]["worstIoU"]])
        outlines.append([f"{n:,} objects", pixels * 1e3, smooth * 1e3, cv * 1e3, f["openCvAllPointsSeconds"]["median"] * 1e3,
                         by_object * 1e3, cv / pixels, cv / smooth, by_object / pixels, by_object / smooth])
        targets += [common.target(f"outlines and measurements against scikit-image, {n} objects", sk / ours, 20, unit="x"),
                    common.target(f"pixel outlines against OpenCV, {n} objects", cv / pixels, 1, unit="x"),
                    common.target(f"smooth outlines against OpenCV, {n} objects", cv / smooth, 1, unit="x"),
                    common.target(f"smooth outlines against OpenCV by object, {n} objects", by_object / smooth, 1, unit="x"),
                    common.target(f"worst IoU of an outline with its pixels, {n} objects", f["smooth"]["worstIoU"], 0.98)]
    common.print_table("Post-processing alone, one thread (ms, median)", [
        "label image", "outlines", "measurements", "ours, all", "scikit-image", "times", "worst IoU"], rows)
    common.print_table("Outlines alone, one thread (ms, median; how many times faster than OpenCV)", [
        "label image", "pixel", "smooth", "OpenCV", "OpenCV, all points", "OpenCV by object", "times, pixel", "times, smooth",
        "by object, pixel", "by object, smooth"], outlines)
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


def ours_run(files, out, threads, model=MODEL, at_once=0):
    wall, peak, text = timed([harness.BUILD / "segworker", "run", "--model", model, "--threads", str(threads), "--timings",
                              "--at-once", str(at_once), *files, "-o", f"{out}/"], QUIET_ENV)
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
    return [common.target("images/s against the Python stack", python / ours, 1.5, unit="x"),
            common.target("total time against bare inference in PyTorch", ours / bare, 1.15, False, "x")]


# ---------------------------------------------------------------- (c) scaling

def tiled_tiff(path, side):
    """16 bits, tiles of 512 x 512 px with the same picture in each; written a tile at a time."""
    import tifffile
    tile = (pictures.nuclei(512, 512, 70, seed=1)[0] * 4095).round().astype(np.uint16)
    count = (-(-side // 512)) ** 2
    tifffile.imwrite(path, (tile for _ in range(count)), shape=(side, side), dtype=np.uint16, tile=(512, 512),
                     photometric="minisblack", bigtiff=side > 30000)


def by_size(folder, model, sides, repeat, least_pixels):
    figures, out = {}, folder / "out"
    out.mkdir(exist_ok=True)
    start = folder / "start.tif"
    tiled_tiff(start, 64)
    path = harness.ROOT / "segworker/models" / model
    for side in sides:
        files = [folder / f"t{side}_{k}.tif" for k in range(max(1, int(least_pixels // (side * side))))]
        tiled_tiff(files[0], side)
        for f in files[1:]:
            f.symlink_to(files[0])
        runs, starts = [], []
        for _ in range(1 if side > 10000 or side > 5000 and path.joinpath("model.pt").exists() else repeat):
            none, r = ours_run([start], out, CORES, path), ours_run(files, out, CORES, path, at_once=1)
            starts.append(none["wall"])
            r["secondsPerMegapixel"] = max(r["wall"] - none["wall"], 1e-6) / (len(files) * side * side / 1e6)
            runs.append(r)
        figures[str(side)] = {
            "images": len(files), "startSeconds": common.spread(starts), "objects": runs[0]["objects"], "stages": runs[0]["stages"],
            "secondsPerMegapixel": common.spread([r["secondsPerMegapixel"] for r in runs]),
            "peakBytes": max(r["peakBytes"] for r in runs)}
        for f in [*files, *out.iterdir()]:
            f.unlink()
    return figures


def by_workers(folder, size, n):
    figures, out = {}, folder / "out"
    out.mkdir(exist_ok=True)
    files = make_images(folder, size, n)
    for workers in (1, 2):
        share = [files[k::workers] for k in range(workers)]
        command = [harness.BUILD / "segworker", "run", "--quiet", "--model", MODEL, "--threads", str(max(1, CORES // workers))]
        begin = time.perf_counter()
        running = [subprocess.Popen([*command, *f, "-o", f"{out}/"], env=QUIET_ENV) for f in share]
        if any([p.wait() for p in running]):
            raise RuntimeError("segworker run failed")
        figures[str(workers)] = {"imagesPerSecond": len(files) / (time.perf_counter() - begin)}
    return figures


def show_scaling(f):
    targets = []
    common.print_table("By image size", ["model", "side", "s/megapixel", "peak MiB", "objects per image"], [
        [model, f"{int(s):,}", v["secondsPerMegapixel"]["median"], v["peakBytes"] / 2**20, v["objects"] / v["images"]]
        for model, sides in f["bySize"].items() for s, v in sorted(sides.items(), key=lambda kv: int(kv[0]))])
    common.print_table("Workers that share the cores (start included)", ["workers", "images/s"],
                       [[w, v["imagesPerSecond"]] for w, v in f.get("byWorkers", {}).items()])
    for model, sides in f["bySize"].items():
        base = sides.get("2000")
        for side, v in sorted(sides.items(), key=lambda kv: int(kv[0])):
            if base and int(side) > 2000:
                ratio = v["secondsPerMegapixel"]["median"] / base["secondsPerMegapixel"]["median"]
                targets.append(common.target(f"{model}: time per megapixel, {side} px against 2000 px", ratio, 1.1, False, "x"))
            if side == "20000":
                targets.append(common.target(f"{model}: peak memory, {side} px", v["peakBytes"] / 1e9, 1, False, "GB"))
    return targets


# ---------------------------------------------------------------- all of it

SHOW = {"postProcessing": show_post, "endToEnd": show_end_to_end, "scaling": show_scaling}


def earlier(args):
    """The figures and the dates of the result file at hand."""
    path = args.output or common.RESULTS / "worker.json"
    if not args.only or args.quick or not path.exists():
        return {}, {}
    old = json.loads(path.read_text())
    return {k: v for k, v in old["figures"].items() if k in SHOW}, old["conditions"].get("measured", {})


def main():
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("post", "run", "sizes", "workers"), help="one part; the others stay as they were measured")
    parser.add_argument("--sizes", type=lambda v: [int(x) for x in v.split(",")], help="sides of the images of part (c)")
    parser.add_argument("--models", type=lambda v: v.split(","), default=["classical_nuclei", "nuclei"], help="models of part (c)")
    args = parser.parse_args()
    quick = args.quick
    repeat = args.repeat or (1 if quick else 5)
    # the network takes some seconds per megapixel: its largest images are run when asked for
    sizes = {m: args.sizes or ([256] if quick else [512, 2000, 6000] + ([20000] if m.startswith("classical") else []))
             for m in args.models}
    machine = common.machine()
    figures, measured = earlier(args)
    figures.setdefault("scaling", {"bySize": {}})

    def done(part):
        version = common.versions()["spheroseg"]
        measured[part] = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "spheroseg": version,
                          "loadByOthersBefore": machine["loadByOthersBefore"]}

    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        if args.only in (None, "post"):
            figures["postProcessing"] = post_processing(
                folder, ((10, 64), (100, 32)) if quick else ((10, 256), (1000, 64), (100000, 20)), repeat)
            done("post")
        if args.only in (None, "run"):
            figures["endToEnd"] = end_to_end(folder, 256 if quick else 512, 2 if quick else 8, 1 if quick else min(repeat, 3))
            done("run")
        for model in args.models if args.only in (None, "sizes") else []:
            figures["scaling"]["bySize"].setdefault(model, {}).update(by_size(
                folder, model, sizes[model], min(repeat, 3), 1e5 if quick else 64e6 if model.startswith("classical") else 16e6))
            for side in sizes[model]:
                done(f"sizes {model} {side}")
        if args.only in (None, "workers"):
            figures["scaling"]["byWorkers"] = by_workers(folder, 256 if quick else 512, 2 if quick else 16)
            done("workers")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    targets = [t for part, show in SHOW.items() if part in figures for t in show(figures[part])]
    import cv2
    import skimage
    import torch
    common.write("worker", args, machine, figures, targets, {
        "repetitions": repeat, "how": " ".join(__doc__.split("\n\n")[1].split()), "scikit-image": skimage.__version__,
        "opencv": cv2.__version__, "torch": torch.__version__, "model": "nuclei", "measured": measured})


if __name__ == "__main__":
    main()
