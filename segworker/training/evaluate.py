"""Score a model folder, with the classical baseline.

    evaluate.py --model segworker/models/nuclei --data ../shared/data [--write]
    evaluate.py --model segworker/models/nuclei --data ../shared/data --part tune --tune

--part held (the default) takes the held-out images, which give the published scores: --write stores them in
model.json.  --part tune takes the tuning images; --tune tries post-processing values there and prints the
best ones (it changes nothing).
"""
import argparse
import itertools
import json
import pathlib

import numpy as np
import torch
from PIL import Image

from dataset import image_path, mask_path, rows_of
from reference import labels_from_maps, load_model, predict_maps, read_image, to_grey
from scores import Scores, otsu_watershed

# a set whose masks come from a program: agreement with it, not truth
SILVER = {"spheroid_many"}


def set_name(dataset, row):
    """Scores are reported per data set; dsb2018 per image type."""
    return f"dsb2018_{row['type'].split('_')[0]}" if dataset == "dsb2018" else dataset


def cases_of(data, names, part):
    """Yields (set name, file, grey image, true labels) of a part's images."""
    for name in names:
        for row in rows_of(data, name, part):
            grey = to_grey(read_image(image_path(data, name, row["file"])))
            truth = np.asarray(Image.open(mask_path(data, name, row["file"]))).astype(np.int64)
            yield set_name(name, row), row["file"], grey, truth


def collect(net, spec, data, part):
    """[(set name, file, truth, maps, grey)] of all images of a part."""
    return [(name, file, truth, predict_maps(net, grey, spec), grey)
            for name, file, grey, truth in cases_of(data, spec["training"]["data"], part)]


def score(cases, label):
    """{set: figures}; `label(case)` gives the label image."""
    sets = {}
    for case in cases:
        sets.setdefault(case[0], Scores()).add(case[2], label(case))
    return {k: v.result() for k, v in sorted(sets.items())}


def worst(cases, post, count=12):
    """Print the images with the lowest AP(0.5)."""
    rows = []
    for case in cases:
        s = Scores()
        s.add(case[2], labels_from_maps(case[3], post))
        r = s.result()
        rows.append((r["AP50"], case[0], case[1], r["objects"], r["found"], r["IoU"]))
    for r in sorted(rows)[:count]:
        print("AP50 %.3f  %s  %s  true %d found %d  IoU %.3f" % r)


GRIDS = {
    "foreground_distance": {"seedThreshold": (0.5, 0.6, 0.7), "seedMinArea": (3, 8), "distSigma": (0.0, 1.0)},
    "foreground_votes": {"threshold": (0.4, 0.5), "seedThreshold": (0.06, 0.1, 0.15), "minConfidence": (0.0, 0.65)},
}


def tune(cases, spec):
    """Print post-processing values by the mean over sets of AP50 + AP75 + IoU."""
    grid, results = GRIDS[spec["output"]["kind"]], []
    for values in itertools.product(*grid.values()):
        trial = {**spec["postprocess"], **dict(zip(grid, values))}
        r = score(cases, lambda c: labels_from_maps(c[3], trial))
        total = np.mean([v["AP50"] + v["AP75"] + v["IoU"] for v in r.values()])
        results.append((total, dict(zip(grid, values)), {k: (v["AP50"], v["AP75"], v["IoU"]) for k, v in r.items()}))
    for r in sorted(results, key=lambda r: -r[0])[:6]:
        print("%.4f %s %s" % r)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True, type=pathlib.Path)
    ap.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--part", choices=("held", "tune"), default="held")
    ap.add_argument("--write", action="store_true")
    ap.add_argument("--tune", action="store_true")
    ap.add_argument("--worst", action="store_true", help="list the worst images")
    a = ap.parse_args()
    if a.tune and a.part == "held" or a.write and a.part == "tune":
        ap.error("values are tuned on the tuning images and scores published of the held-out ones")
    torch.set_num_threads(a.threads)
    net, spec = load_model(a.model)
    cases = collect(net, spec, a.data, a.part)
    post = spec["postprocess"]
    if a.tune:
        tune(cases, spec)
    ours = score(cases, lambda c: labels_from_maps(c[3], post))
    base = score(cases, lambda c: otsu_watershed(c[4]))
    for name, figures in ours.items():
        print(name, json.dumps(figures))
        print("  baseline", json.dumps(base[name]))
    if a.worst:
        worst(cases, post)
    if a.write:
        for name, figures in ours.items():
            figures["baseline"] = {k: base[name][k] for k in ("AP50", "AP75", "IoU")}
            figures["masks"] = "silver" if name in SILVER else "reference"
        spec["scores"] = ours
        (a.model / "model.json").write_text(json.dumps(spec, indent=2) + "\n")


if __name__ == "__main__":
    main()
