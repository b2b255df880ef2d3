"""Write SCORES.md: every set's held-out images, our models beside the classical one and the plain baseline.

    table.py --segworker build/segworker --data ../shared/data [--threads N]

Our models and the classical ones are run as users run them (`segworker run --format geojson`), and their outlines are
filled again; the baseline (Otsu's threshold with a distance watershed, scores.py) gives label images directly.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
from PIL import Image
from skimage.draw import polygon

from dataset import image_path, mask_path, rows_of
from evaluate import SILVER
from reference import read_image, to_grey
from scores import Scores, otsu_watershed

HERE = pathlib.Path(__file__).resolve().parent
# row: (data set, our model for it, the classical one for it, type of image or None = all)
ROWS = {
    "dsb2018 fluorescence": ("dsb2018", "nuclei", "classical_nuclei", "fluorescence"),
    "dsb2018 histology": ("dsb2018", "nuclei", "classical_nuclei", "histology_purple"),
    "dsb2018 all": ("dsb2018", "nuclei", "classical_nuclei", None),
    "bbbc039": ("bbbc039", "nuclei", "classical_nuclei", None),
    "usiigaci": ("usiigaci", "phase_contrast", "classical", None),
    "spheroid_single": ("spheroid_single", "spheroid", "classical", None),
    "spheroid_many": ("spheroid_many", "spheroid", "classical", None),
    "spheroid_fluo": ("spheroid_fluo", "spheroid", "classical", None),
}
FIGURES = ("AP50", "AP75", "IoU")


def fill(path, shape):
    """GeoJSON outlines -> label image; the first object wins where two overlap."""
    out = np.zeros(shape, np.int64)
    for number, feature in enumerate(json.loads(path.read_text())["features"], 1):
        geometry = feature["geometry"]
        parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        inside = np.zeros(shape, bool)
        for rings in parts:
            for k, ring in enumerate(np.asarray(r, float) for r in rings):
                # outlines run along pixel edges: pixel (0, 0) has its centre at 0.5
                inside[polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, shape)] = k == 0
        out[inside & (out == 0)] = number
    return out


def run_model(binary, model, images, threads):
    """Run a model over the images; returns the temporary folder with a NAME.geojson of each."""
    folder = tempfile.TemporaryDirectory()
    subprocess.run([str(binary), "run", "--quiet", "--model", model, "--threads", str(threads),
                    *map(str, images), "-o", folder.name, "--format", "geojson"], check=True, cwd=HERE.parents[1])
    return folder


def score_row(data, name, models, kind, binary, threads):
    """{"ours" | "classical" | "otsu": figures} of one row of the table."""
    rows = [r for r in rows_of(data, name, "held") if kind in (None, r.get("type"))]
    images = [image_path(data, name, r["file"]).resolve() for r in rows]
    sums = {k: Scores() for k in ("ours", "classical", "otsu")}
    with run_model(binary, models[0], images, threads) as ours, run_model(binary, models[1], images, threads) as plain:
        for path in images:
            truth = np.asarray(Image.open(mask_path(data, name, path.name))).astype(np.int64)
            for key, folder in (("ours", ours), ("classical", plain)):
                sums[key].add(truth, fill(pathlib.Path(folder) / (path.stem + ".geojson"), truth.shape))
            sums["otsu"].add(truth, otsu_watershed(to_grey(read_image(path))))
    return {k: v.result() for k, v in sums.items()}


def table(results):
    """Results of all rows -> Markdown."""
    lines = ["| images | n | objects | models | ours: AP(0.5) | AP(0.75) | IoU | classical: AP(0.5) | AP(0.75) | IoU "
             "| Otsu + watershed: AP(0.5) | AP(0.75) | IoU |", "|" + "---|" * 13]
    for title, (name, ours, plain, _) in ROWS.items():
        r = results[title]
        cells = [f"{r[k][f]:.3f}" for k in ("ours", "classical", "otsu") for f in FIGURES]
        silver = " (silver)" if name in SILVER else ""
        lines.append(f"| {title}{silver} | {r['ours']['images']} | {r['ours']['objects']} | `{ours}`, `{plain}` | "
                     + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--segworker", type=pathlib.Path, required=True)
    ap.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    results = {}
    for title, (name, ours, plain, kind) in ROWS.items():
        results[title] = score_row(a.data, name, (ours, plain), kind, a.segworker.resolve(), a.threads)
        print(title, json.dumps(results[title]), flush=True)
    (HERE / "SCORES.md").write_text(f"""# Scores on held-out images

Written by `table.py`. Images of `splits/NAME.txt`, which no model was trained on. AP(t) = TP / (TP + FP + FN) over
all images of a set pooled, an object being found when its intersection over union with a true one is at least t;
IoU is the mean over images of the foreground's. Silver: the masks come from a program, so the figure is agreement
with that program.

{table(results)}

Ours and the classical one were run with `segworker run --format geojson`, and the outlines filled again.
The empty image among spheroid_single counts with IoU 1 when nothing is found in it, else 0.
""")


if __name__ == "__main__":
    main()
