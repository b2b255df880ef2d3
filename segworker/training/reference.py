"""Reference pipeline: image file -> label image, step by step as the worker runs it.

    reference.py --model DIR IMAGE --save-maps out.npz --labels out.png
    reference.py --model DIR --out-dir PRED IMAGE [IMAGE ...]

Arrays are [height, width].  Every parameter comes from DIR/model.json.
"""
import argparse
import json
import pathlib

import numpy as np
from PIL import Image
from scipy import ndimage

FOUR = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
EPS = 1e-6


# ---------------------------------------------------------------- 1. decode
def read_image(path):
    """Image file -> float32 [H, W] or [H, W, 3], in the file's own units."""
    im = Image.open(path)
    if im.mode not in ("L", "I;16", "I;16B", "I;16L", "I", "F", "RGB"):
        im = im.convert("RGB")
    a = np.asarray(im)
    return a[..., :3].astype(np.float32) if a.ndim == 3 else a.astype(np.float32)


def to_grey(a):
    """[H, W] or [H, W, 3] -> [H, W] float32, luma weights of Rec. 601."""
    if a.ndim == 2:
        return a
    return (0.299 * a[..., 0] + 0.587 * a[..., 1] + 0.114 * a[..., 2]).astype(np.float32)


# ---------------------------------------------------------------- 2. scale
def working_size(height, width, scale):
    """Size (height, width) in px at which the network sees the image."""
    if scale["kind"] == "native":
        return height, width
    factor = scale["px"] / max(height, width)
    if factor > 1 and not scale["upscale"]:
        return height, width
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize_triangle(a, height, width):
    """Separable triangle filter, support max(1, in/out) source px, half-pixel centres.

    Pillow's BILINEAR on mode "F" is exactly that filter.
    """
    if a.shape == (height, width):
        return a
    im = Image.fromarray(np.ascontiguousarray(a, np.float32), mode="F")
    return np.asarray(im.resize((width, height), Image.BILINEAR), np.float32)


# ---------------------------------------------------------------- 3. normalise
def normalise(a, spec):
    """[H, W] in source units -> [H, W] float32 in clipMin..clipMax, or None: no contrast."""
    lo, hi = np.percentile(a, [spec["low"], spec["high"]])
    if hi - lo <= spec.get("minRange", 0):
        return None
    x = (a - np.float32(lo)) / np.float32(max(hi - lo, EPS))
    return np.clip(x, spec["clipMin"], spec["clipMax"]).astype(np.float32)


# ---------------------------------------------------------------- 4. network on tiles
def reflect_index(i, n):
    """Index of a reflected coordinate (the edge pixel is not repeated)."""
    if n == 1:
        return np.zeros_like(i)
    i = np.abs(i) % (2 * (n - 1))
    return np.where(i >= n, 2 * (n - 1) - i, i)


def pad_reflect(x, divisor):
    """Pad at the bottom and right so that both sides are multiples of divisor."""
    h, w = x.shape
    rows = reflect_index(np.arange(-(-h // divisor) * divisor), h)
    cols = reflect_index(np.arange(-(-w // divisor) * divisor), w)
    return x[rows][:, cols]


def tile_spans(n, tile, halo):
    """Cover 0..n (n a multiple of the divisor) along one axis.

    Returns [(start, stop, core_start, core_stop)]: the network sees start..stop, and its
    output is kept for core_start..core_stop.  The last tile is moved back to end at n.
    """
    if n <= tile:
        return [(0, n, 0, n)]
    step = tile - 2 * halo
    starts = list(range(0, n - tile, step)) + [n - tile]
    spans = []
    for k, s in enumerate(starts):
        core_start = 0 if k == 0 else s + halo
        core_stop = n if k == len(starts) - 1 else s + tile - halo
        spans.append((s, s + tile, core_start, core_stop))
    return spans


def run_network(net, x, spec, planes):
    """[H, W] normalised -> [planes, H, W] float32.  Where two cores overlap the later tile wins."""
    import torch
    h, w = x.shape
    padded = pad_reflect(x, spec["divisor"])
    out = np.zeros((planes,) + padded.shape, np.float32)
    with torch.no_grad():
        for y0, y1, cy0, cy1 in tile_spans(padded.shape[0], spec["tile"], spec["halo"]):
            for x0, x1, cx0, cx1 in tile_spans(padded.shape[1], spec["tile"], spec["halo"]):
                part = torch.from_numpy(np.ascontiguousarray(padded[y0:y1, x0:x1]))
                y = net(part[None, None]).numpy()[0]
                out[:, cy0:cy1, cx0:cx1] = y[:, cy0 - y0:cy1 - y0, cx0 - x0:cx1 - x0]
    return out[:, :h, :w]


# ---------------------------------------------------------------- 5. maps
def predict_maps(net, grey, model):
    """Grey image [H, W], model.json contents -> maps float32 [2 or 3, H, W] at the image's size.

    Kind "foreground_distance": foreground, distance.  Kind "foreground_votes": foreground and the way to the
    object's centre, down and to the right, in px of the image.
    """
    spec, planes = model["input"], len(model["output"]["channels"])
    h, w = grey.shape
    wh, ww = working_size(h, w, spec["scale"])
    x = normalise(resize_triangle(grey, wh, ww), spec["normalisation"])
    if x is None:
        return np.zeros((planes, h, w), np.float32)
    maps = run_network(net, x, spec, planes)
    maps = np.stack([resize_triangle(m, h, w) for m in maps])
    if planes == 3:
        maps[1:] *= np.array([h / wh, w / ww], np.float32)[:, None, None]
    return maps


# ---------------------------------------------------------------- 6. labels
def drop_small(labels, min_area):
    """Remove objects below min_area px and renumber the rest 1..N in their order."""
    area = np.bincount(labels.ravel())
    keep = area >= min_area
    keep[0] = False
    renumber = np.where(keep, np.cumsum(keep), 0)
    return renumber[labels]


def drop_faint(labels, foreground, least):
    """Remove objects whose mean foreground probability is below `least`, likewise."""
    mean = np.bincount(labels.ravel(), foreground.ravel()) / np.maximum(np.bincount(labels.ravel()), 1)
    keep = mean >= least
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0)[labels]


def seed_parts_without(seeds, mask, min_area):
    """Add a seed for every 4-connected part of the mask that has none and is big enough: all of it."""
    n = int(seeds.max())
    parts, count = ndimage.label(mask, FOUR)
    seeded = np.zeros(count + 1, bool)
    seeded[np.unique(parts[seeds > 0])] = True
    area = np.bincount(parts.ravel(), minlength=count + 1)
    orphan = ~seeded & (area >= min_area)
    orphan[0] = False
    number = np.where(orphan, n + np.cumsum(orphan), 0)
    return seeds + number[parts]


def find_seeds(distance, mask, post):
    """Seed label image int [H, W]; every mask component that is big enough has a seed."""
    smooth = distance
    if post.get("distSigma", 0) > 0:
        smooth = ndimage.gaussian_filter(distance, post["distSigma"], mode="reflect", truncate=4.0)
    seeds, n = ndimage.label((smooth >= post["seedThreshold"]) & mask, FOUR)
    seeds = drop_small(seeds, post["seedMinArea"])
    return seed_parts_without(seeds, mask, post["minArea"]), smooth


def fill_holes(labels, max_area=None):
    """Fill background holes that lie inside one object (all, or those up to max_area px)."""
    holes, n = ndimage.label(labels == 0, FOUR)
    if n == 0:
        return labels
    area = np.bincount(holes.ravel(), minlength=n + 1)
    low = np.full(n + 1, np.iinfo(np.int64).max)
    high = np.zeros(n + 1, np.int64)
    edge = np.zeros(n + 1, bool)
    for side in (holes[0], holes[-1], holes[:, 0], holes[:, -1]):
        edge[side] = True
    for near, hole in ((labels[1:], holes[:-1]), (labels[:-1], holes[1:]),
                       (labels[:, 1:], holes[:, :-1]), (labels[:, :-1], holes[:, 1:])):
        pick = (hole > 0) & (near > 0)
        np.minimum.at(low, hole[pick], near[pick])
        np.maximum.at(high, hole[pick], near[pick])
    fill = ~edge & (low == high)
    if max_area is not None:
        fill &= area <= max_area
    fill[0] = False
    return np.where(fill[holes], high[holes], labels)


def land(down, right):
    """Offsets [H, W] -> row and column of the pixel that each pixel's vote goes to."""
    h, w = down.shape
    at = []
    for pos, off, n in ((np.arange(h)[:, None], down, h), (np.arange(w)[None], right, w)):
        target = np.floor(pos.astype(np.float32) + np.float32(0.5) + off)
        at.append(np.where(np.isnan(target), pos, np.clip(target, 0, n - 1)).astype(np.int64))
    return at


def vote_heaps(counts, post):
    """Votes per pixel [H, W] -> heap number per pixel, 0 = none.

    Pixels are taken by falling smoothed density; each joins the heap of its densest neighbour (8 of them).
    Where two heaps meet, the lower one joins the higher when the density there is at least seedThreshold
    of the lower one's peak, or when the lower one has fewer than seedMinArea votes.  Where both have fewer than
    smallArea votes together, smallSeedThreshold stands for seedThreshold.
    """
    h, w = counts.shape
    sigma, ratio, least_votes = post["distSigma"], np.float32(post["seedThreshold"]), post["seedMinArea"]
    small_ratio, small_area = np.float32(post.get("smallSeedThreshold", 0)), post.get("smallArea", 0)
    density, floor = counts, 0.5
    if sigma > 0:
        density = ndimage.gaussian_filter(counts, sigma, mode="reflect", truncate=4.0)
        k = np.exp(-0.5 * (np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1) / sigma) ** 2)
        floor = 0.5 / k.sum() ** 2
    flat, votes = density.ravel(), counts.ravel().astype(np.float64).copy()
    order = np.nonzero(flat > np.float32(floor))[0]
    order = order[np.argsort(-flat[order], kind="stable")]
    parent = np.full(h * w, -1)

    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i in order:
        y, x = divmod(int(i), w)
        near = [v * w + u for v in range(max(y - 1, 0), min(y + 2, h)) for u in range(max(x - 1, 0), min(x + 2, w))
                if (v, u) != (y, x) and parent[v * w + u] >= 0]
        parent[i] = i
        if near:
            top = root(max(near, key=lambda j: flat[j]))
            parent[i] = top
            votes[top] += votes[i]
        for j in near:
            a, b = root(i), root(j)
            if a == b:
                continue
            high, low = (a, b) if (flat[a], -a) > (flat[b], -b) else (b, a)
            share = small_ratio if votes[a] + votes[b] < small_area else ratio
            if flat[i] >= share * flat[low] or votes[low] < least_votes:
                parent[low] = high
                votes[high] += votes[low]
    peaks = [i for i in np.sort(order) if parent[i] == i and votes[i] >= least_votes]
    number = np.zeros(h * w, np.int64)
    number[peaks] = np.arange(1, len(peaks) + 1)
    number[order] = [number[root(i)] for i in order]
    return number.reshape(h, w)


def largest_parts(labels):
    """Clear what is not in the largest 4-connected part of its label (of equals the first)."""
    out = np.zeros_like(labels)
    for i, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            parts, _ = ndimage.label(labels[box] == i, FOUR)
            area = np.bincount(parts.ravel())
            area[0] = 0
            out[box][parts == area.argmax()] = i
    return out


def group_votes(mask, down, right, post):
    """Seeds [H, W]: the pixels of the mask by the heap that their vote went to."""
    rows, cols = land(down, right)
    counts = np.zeros(mask.shape, np.float32)
    np.add.at(counts, (rows[mask], cols[mask]), 1)
    heaps = vote_heaps(counts, post)
    return largest_parts(np.where(mask, heaps[rows, cols], 0))


def labels_from_maps(maps, post, detect_holes=False):
    """Maps as of predict_maps -> label image int64 [H, W], 0 background, objects 1..N."""
    from skimage.segmentation import watershed
    mask = maps[0] >= post["threshold"]
    if not mask.any():
        return np.zeros(mask.shape, np.int64)
    if len(maps) == 2:
        seeds, level = find_seeds(maps[1], mask, post)
    else:
        seeds, level = seed_parts_without(group_votes(mask, maps[1], maps[2], post), mask, post["minArea"]), maps[0]
    labels = watershed(-level, seeds, mask=mask, connectivity=1).astype(np.int64)
    labels = fill_holes(labels, post.get("maxHoleArea", 0) if detect_holes else None)
    return drop_faint(drop_small(labels, post["minArea"]), maps[0], post.get("minConfidence", 0))


# ---------------------------------------------------------------- command line
def load_model(folder):
    """Model folder -> (TorchScript module, parsed model.json)."""
    import torch
    folder = pathlib.Path(folder)
    spec = json.loads((folder / "model.json").read_text())
    return torch.jit.load(str(folder / spec["file"]), map_location="cpu").eval(), spec


def segment(net, spec, path, detect_holes=False):
    """Image file -> (labels, maps)."""
    maps = predict_maps(net, to_grey(read_image(path)), spec)
    return labels_from_maps(maps, spec["postprocess"], detect_holes), maps


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True, type=pathlib.Path)
    ap.add_argument("--labels", type=pathlib.Path, help="label PNG (one image)")
    ap.add_argument("--save-maps", type=pathlib.Path, help="npz with the maps and the labels (one image)")
    ap.add_argument("--out-dir", type=pathlib.Path, help="folder for NAME.png label images")
    ap.add_argument("--detect-holes", action="store_true", help="keep holes inside objects")
    ap.add_argument("images", nargs="+", type=pathlib.Path)
    a = ap.parse_args()
    if len(a.images) > 1 and (a.labels or a.save_maps):
        ap.error("--labels and --save-maps take one image; use --out-dir")
    net, spec = load_model(a.model)
    if a.out_dir:
        a.out_dir.mkdir(parents=True, exist_ok=True)
    for path in a.images:
        labels, maps = segment(net, spec, path, a.detect_holes)
        print(f"{path.name}: {labels.max()} objects")
        if a.save_maps:
            np.savez_compressed(a.save_maps, labels=labels.astype(np.uint32),
                                **dict(zip(spec["output"]["channels"], maps)))
        for target in filter(None, (a.labels, a.out_dir and a.out_dir / (path.stem + ".png"))):
            Image.fromarray(labels.astype(np.uint16)).save(target)


if __name__ == "__main__":
    main()
