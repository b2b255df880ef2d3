"""The usual Python stack on the same model: PyTorch, then scikit-image. Image files to GeoJSON with measurements.

    python_stack.py MODEL_DIR OUT_DIR THREADS IMAGE...

Prints one JSON line: seconds by stage over all images. Decoding, scaling, normalising and tiling are those of the
training code; the model's file is loaded as it is (TorchScript, frozen: faster than eager modules); the rest is
scikit-image as its documentation shows it: label, watershed, regionprops, find_contours.
"""
import json
import pathlib
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "segworker/training"))

PROPERTIES = ("area", "area_filled", "perimeter", "equivalent_diameter_area", "solidity", "extent", "feret_diameter_max",
              "axis_major_length", "axis_minor_length", "orientation", "bbox", "centroid", "euler_number",
              "intensity_mean")


def outlines(region):
    """Closed rings (x, y) of a region at its place in the image, holes among them."""
    from skimage.measure import find_contours
    y0, x0 = region.bbox[:2]
    return [np.flip(c, 1) + (x0 - 0.5, y0 - 0.5) for c in find_contours(np.pad(region.image, 1).astype(np.uint8), 0.5)]


def measured(region):
    return {name: getattr(region, name) for name in PROPERTIES}


def label_maps(foreground, distance, post):
    from skimage.filters import gaussian
    from skimage.measure import label
    from skimage.morphology import remove_small_holes, remove_small_objects
    from skimage.segmentation import watershed
    mask = foreground >= post["threshold"]
    if post["distSigma"] > 0:
        distance = gaussian(distance, post["distSigma"])
    seeds = label(mask & (distance >= post["seedThreshold"]), connectivity=1)
    seeds = remove_small_objects(seeds, post["seedMinArea"])
    parts = label(mask, connectivity=1)
    parts[np.isin(parts, parts[seeds > 0])] = 0  # what is left has no seed: an object as a whole
    seeds[parts > 0] = parts[parts > 0] + seeds.max()
    labels = watershed(-distance, seeds, mask=mask)
    labels[remove_small_holes(labels > 0, post["maxHoleArea"] + 1) & (labels == 0)] = 0
    return remove_small_objects(labels, post["minArea"])


def main():
    import torch
    import reference
    folder, out, threads, *images = sys.argv[1:]
    torch.set_num_threads(int(threads))
    net, spec = reference.load_model(folder)
    scale, norm = spec["input"]["scale"], spec["input"]["normalisation"]
    from skimage.measure import regionprops
    seconds = {}

    def stage(name, since):
        now = time.perf_counter()
        seconds[name] = seconds.get(name, 0) + now - since
        return now

    with torch.no_grad():
        net(torch.zeros(1, 1, 256, 256))
    begin = time.perf_counter()
    objects = 0
    for path in images:
        t = time.perf_counter()
        grey = reference.to_grey(reference.read_image(path))
        t = stage("decode", t)
        h, w = grey.shape
        wh, ww = reference.working_size(h, w, scale)
        x = reference.normalise(reference.resize_triangle(grey, wh, ww), norm)
        t = stage("normalise", t)
        maps = reference.run_network(net, x, spec["input"], len(spec["output"]["channels"]))
        maps = [reference.resize_triangle(m, h, w) for m in maps]
        t = stage("infer", t)
        if len(maps) == 2:
            labels = label_maps(*maps, spec["postprocess"])
        else:  # votes for centres: the training code's own step, which is NumPy and scikit-image as well
            labels = reference.labels_from_maps(np.stack(maps), spec["postprocess"], True)
        t = stage("label", t)
        features = []
        for r in regionprops(labels, intensity_image=grey):
            features.append({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [c.round(2).tolist() for c in outlines(r)]},
                             "properties": measured(r)})
        t = stage("polygons", t)
        name = pathlib.Path(out) / (pathlib.Path(path).stem + ".geojson")
        name.write_text(json.dumps({"type": "FeatureCollection", "features": features}, default=float))
        stage("write", t)
        objects += len(features)
    print(json.dumps({"seconds": seconds, "total": time.perf_counter() - begin, "objects": objects}))


if __name__ == "__main__":
    main()
