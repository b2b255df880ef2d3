"""Write the held-out lists (splits/NAME.txt), the tuning lists (splits/NAME.tune.txt) and the dsb2018 families.

    make_splits.py --data ../shared/data

Held-out images only give the published scores.  Tuning images are taken out of the rest in the same
way; they choose post-processing values and end a training early, and are not trained on either.

Run once; the lists are committed, so every later run uses the same split.  Images of one
sample look alike, so whole families are held out: dsb2018 has no sample column, and
families are clusters of size, type, intensity histogram and object size.
"""
import argparse
import csv
import pathlib
import re

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from dataset import image_path, mask_path, read_manifest
from reference import read_image, to_grey
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
SHARE = 0.15
TUNE_SHARE = 0.12
SEED = 20
TUNE_SEED = 21


def describe(data, row):
    """dsb2018 image -> feature vector (grey quantiles, colour, noise, object size)."""
    a = read_image(image_path(data, "dsb2018", row["file"]))
    g = to_grey(a) / 255.0
    q = np.quantile(g, [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    noise = np.median(np.abs(np.diff(g, axis=1)))
    colour = [a[..., 0].mean() / 255 - g.mean(), a[..., 2].mean() / 255 - g.mean()] if a.ndim == 3 else [0, 0]
    m = np.asarray(Image.open(mask_path(data, "dsb2018", row["file"]))).astype(int)
    area = np.bincount(m.ravel())[1:]
    size = np.log(np.median(area[area > 0])) if m.max() else 5.0
    inside = np.log(g[m > 0].mean() + 0.02) if m.max() else np.log(g.mean() + 0.02)
    outside = np.log(np.median(g[m == 0]) + 0.004)
    return np.concatenate([q * 1.5, [noise * 10], np.array(colour) * 4, [size * 0.35, inside * 0.25, outside * 0.25]])


def dsb_families(data):
    """[(file, family name)] of dsb2018; a family never spans two types or image sizes."""
    rows = read_manifest(data, "dsb2018")
    groups = {}
    for r in rows:
        groups.setdefault((r["type"], r["width"], r["height"]), []).append(r)
    result = []
    for key, members in sorted(groups.items()):
        ids = np.ones(len(members), int)
        if len(members) > 2:
            features = np.stack([describe(data, r) for r in members])
            ids = fcluster(linkage(features, "average"), 0.22, "distance")
        result += [(r["file"], f"{key[0]}_{key[1]}x{key[2]}_{i:02d}") for r, i in zip(members, ids)]
    return sorted(result)


def hold_out(groups, rng, share):
    """{group: [files]} -> files of whole groups, about `share` of all; biggest group stays."""
    total = sum(len(v) for v in groups.values())
    names = sorted(groups)
    biggest = max(names, key=lambda n: len(groups[n]))
    chosen = []
    for name in rng.permutation(names):
        if name == biggest or len(chosen) + len(groups[name]) > share * total + 1:
            continue
        chosen += groups[name]
        if len(chosen) >= share * total:
            break
    return chosen


def simple_groups(data, name):
    """{sample: [files]} for the sets whose file names tell the sample."""
    rules = {"bbbc039": r"b39_[A-Z]+\d+", "usiigaci": r"usi_set\d+", "spheroid_single": r"cp_\d+",
             "spheroid_many": r"pds_.*_D\d+", "spheroid_fluo": r"rm_\w+?_\d+"}
    groups = {}
    for r in read_manifest(data, name):
        groups.setdefault(re.match(rules[name], r["file"]).group(0), []).append(r["file"])
    return groups


def tuning_lists(data, strata, held):
    """{set: files} for tuning, whole samples out of what is not held out."""
    rng = np.random.default_rng(TUNE_SEED)
    lists = {}
    for name, taken in held.items():
        groupings = [strata[s] for s in sorted(strata)] if name == "dsb2018" else [simple_groups(data, name)]
        lists[name] = []
        for groups in groupings:
            rest = {g: files for g, files in groups.items() if not set(files) & set(taken)}
            lists[name] += hold_out(rest, rng, TUNE_SHARE)
    return lists


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--data", type=pathlib.Path, required=True)
    data = ap.parse_args().data
    rng = np.random.default_rng(SEED)
    out = HERE / "splits"
    out.mkdir(exist_ok=True)
    families = dsb_families(data)
    with open(out / "dsb2018_families.csv", "w", newline="") as f:
        csv.writer(f, lineterminator="\n").writerows([("file", "family")] + families)
    strata = {}
    for file, family in families:
        strata.setdefault(family.rsplit("_", 1)[0], {}).setdefault(family, []).append(file)
    held = [f for s in sorted(strata) for f in hold_out(strata[s], rng, SHARE)]
    lists = {"dsb2018": held}
    for name in ("bbbc039", "usiigaci", "spheroid_single", "spheroid_many", "spheroid_fluo"):
        lists[name] = hold_out(simple_groups(data, name), rng, SHARE)
    empty = [r["file"] for r in read_manifest(data, "spheroid_single") if r["objects"] == "0"]
    # the only empty image must be a test of the network, not something it has memorised
    lists["spheroid_single"] = sorted(set(lists["spheroid_single"]) | set(empty))
    for name, files in lists.items():
        (out / f"{name}.txt").write_text("".join(f + "\n" for f in sorted(files)))
        print(name, len(files))
    for name, files in tuning_lists(data, strata, lists).items():
        (out / f"{name}.tune.txt").write_text("".join(f + "\n" for f in sorted(files)))
        print(name, "tuning", len(files))


if __name__ == "__main__":
    main()
