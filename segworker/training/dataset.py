"""Training data: reading, targets, and augmented crops.

An `Item` holds one image at the working scale (see `load_item`); `Sampler.batch(step)` cuts random crops
out of them.  Everything random is derived from
(seed, step), so a resumed run continues exactly like an uninterrupted one.
"""
import collections
import csv
import hashlib
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

from clutter import dark_rim, scale_bar
from reference import normalise, read_image, resize_triangle, to_grey, working_size

HERE = pathlib.Path(__file__).resolve().parent
Item = collections.namedtuple("Item", "dataset file group planes labels centres")
MIN_RADIUS = 3.0  # px; below that an object's size does not make its errors count more


# ---------------------------------------------------------------- files
def image_path(data, name, file):
    """Path of an image of data set `name`."""
    return pathlib.Path(data) / name / "train" / "images" / file


def mask_path(data, name, file):
    """Path of that image's label mask."""
    return pathlib.Path(data) / name / "train" / "masks" / (pathlib.Path(file).stem + ".png")


def read_manifest(data, name):
    """Rows of NAME/manifest.csv as dictionaries."""
    with open(pathlib.Path(data) / name / "manifest.csv", newline="") as f:
        return list(csv.DictReader(f))


def listed_files(name, part):
    """File names of a committed list; part: "held" (published scores only) or "tune"."""
    return (HERE / "splits" / f"{name}{'.tune' if part == 'tune' else ''}.txt").read_text().split()


def families():
    """{dsb2018 file: family}."""
    with open(HERE / "splits" / "dsb2018_families.csv", newline="") as f:
        return {r["file"]: r["family"] for r in csv.DictReader(f)}


def rows_of(data, name, part):
    """Rows of a data set's part: "train", "tune" or "held"."""
    part_of = {f: p for p in ("tune", "held") for f in listed_files(name, p)}
    return [r for r in read_manifest(data, name) if part_of.get(r["file"], "train") == part]


# ---------------------------------------------------------------- targets
def distance_target(labels):
    """Labels [H, W] -> float32 [H, W]: distance to the object's border / its maximum.

    The image's own edge is no border: an object cut by the edge goes on outside.
    """
    out = np.zeros(labels.shape, np.float32)
    for i, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        grown = tuple(slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, labels.shape))
        m = labels[grown] == i
        if m.all():
            d = np.ones(m.shape)
        else:
            d = ndimage.distance_transform_edt(m)
        out[grown][m] = (d / d.max())[m]
    return out


def contact_map(labels):
    """bool [H, W]: pixels within 2 px of two different objects, where splits are decided."""
    big = np.where(labels == 0, np.iinfo(np.int32).max, labels)
    high = ndimage.maximum_filter(labels, 5)
    low = ndimage.minimum_filter(big, 5)
    return (high > 0) & (low < high)


def centres_of(labels):
    """Labels [H, W] -> float32 [N + 1, 3]: y and x of a pixel inside each object, and its area; row 0 unused.

    The pixel is the object's nearest one to its centroid, so that the centre of a crescent lies on it.
    """
    out = np.zeros((int(labels.max()) + 1, 3), np.float32)
    for i, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            ys, xs = np.nonzero(labels[box] == i)
            k = np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2)
            out[i] = ys[k] + box[0].start + 0.5, xs[k] + box[1].start + 0.5, len(ys)
    return out


def load_item(data, name, row, group, input_spec):
    """Image + mask -> Item with planes uint8 [4, h, w]: grey, foreground, distance, contact.

    All are scaled to 0..255; h and w are the working size the worker would use. Beside them the labels
    int16 [h, w] and the objects' centres (see centres_of; pixel (0, 0) covers 0..1).
    """
    grey = to_grey(read_image(image_path(data, name, row["file"])))
    h, w = working_size(*grey.shape, input_spec["scale"])
    x = normalise(resize_triangle(grey, h, w), input_spec["normalisation"])
    x = np.zeros((h, w), np.float32) if x is None else x
    labels = Image.fromarray(np.asarray(Image.open(mask_path(data, name, row["file"]))).astype(np.int32), mode="I")
    labels = np.asarray(labels.resize((w, h), Image.NEAREST)).astype(np.int32)
    planes = np.stack([x, labels > 0, distance_target(labels), contact_map(labels)])
    return Item(name, row["file"], group, np.round(planes * 255).astype(np.uint8), labels.astype(np.int16),
                centres_of(labels))


def load_items(data, names, input_spec, cache_dir, part="train"):
    """Items of one part of the data sets, decoded once and kept in cache_dir."""
    lists = [listed_files(n, p) for n in names for p in ("tune", "held")]
    key = hashlib.sha1(repr((2, part, names, input_spec, lists)).encode()).hexdigest()[:12]
    path = pathlib.Path(cache_dir) / f"items_{key}.pt"
    if path.exists():
        return [Item(*t) for t in torch.load(path)]
    family = families() if "dsb2018" in names else {}
    items = [load_item(data, name, row, family.get(row["file"], name), input_spec)
             for name in names for row in rows_of(data, name, part)]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save([tuple(i) for i in items], path)
    return items


# ---------------------------------------------------------------- sampling
def item_weights(items, shares):
    """Probability per item.

    `shares` maps a group prefix to its share of the crops.  Inside a share a family of n
    alike images counts sqrt(n) times, so that big families do not drown rare ones.
    """
    sizes = collections.Counter(i.group for i in items)
    weight = np.array([sizes[i.group] ** -0.5 for i in items])
    for prefix, share in shares.items():
        pick = np.array([i.group.startswith(prefix) for i in items])
        weight[pick] *= share / weight[pick].sum()
    return weight / weight.sum()


class Window:
    """A randomly turned, flipped, stretched and zoomed square window of an item."""

    def __init__(self, item, size, zoom, rng):
        _, h, w = item.planes.shape
        angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.4 else rng.integers(4) * np.pi / 2
        flip = 1.0 if rng.random() < 0.5 else -1.0
        stretch = np.exp(rng.uniform(-0.1, 0.1))
        # half the crop's extent in source px; the centre stays so far from the edge if it can
        half = size / zoom / 2
        cy = rng.uniform(min(half, h * 0.3), max(h - half, h * 0.7))
        cx = rng.uniform(min(half, w * 0.3), max(w - half, w * 0.7))
        reach = int(np.ceil(half * 1.6)) + 2
        self.item, self.size = item, size
        self.rows = slice(max(0, int(cy) - reach), min(h, int(cy) + reach))
        self.cols = slice(max(0, int(cx) - reach), min(w, int(cx) + reach))
        self.centre = np.array([cy, cx])
        c, s = np.cos(angle), np.sin(angle)
        kx, ky = half * stretch, half / stretch
        # window coordinates (v, u) in -1..1 -> source px (y, x) around the centre
        self.turn = np.array([[c * ky, s * kx * flip], [-s * ky, c * kx * flip]])
        self.scale = size / 2 / np.sqrt(kx * ky)

    def grid(self):
        """float32 [1, S, S, 2] for grid_sample over the part of the source that the window touches."""
        ph, pw = self.rows.stop - self.rows.start, self.cols.stop - self.cols.start
        (yv, yu), (xv, xu) = self.turn
        y, x = self.centre[0] - self.rows.start, self.centre[1] - self.cols.start
        theta = torch.tensor([[[xu * 2 / pw, xv * 2 / pw, x * 2 / pw - 1],
                               [yu * 2 / ph, yv * 2 / ph, y * 2 / ph - 1]]], dtype=torch.float32)
        return F.affine_grid(theta, (1, 1, self.size, self.size), align_corners=False)

    def planes(self):
        """float32 [4, S, S] in 0..1; beyond the image's edge it is mirrored."""
        part = torch.from_numpy(self.item.planes[:, self.rows, self.cols].astype(np.float32) / 255.0)
        out = F.grid_sample(part[None], self.grid(), mode="bilinear", padding_mode="reflection", align_corners=False)
        return out[0].numpy()

    def labels(self):
        """int [S, S], mirrored likewise, and bool [S, S]: pixels that are not mirrored."""
        grid = self.grid()
        part = torch.from_numpy(self.item.labels[self.rows, self.cols].astype(np.float32))
        out = F.grid_sample(part[None, None], grid, mode="nearest", padding_mode="reflection", align_corners=False)
        return out[0, 0].numpy().astype(np.int64), (grid[0].abs() <= 1).all(-1).numpy()

    def centres(self):
        """Centres (y, x) and radii of the item's objects in window px, float32 [N + 1, 3]."""
        c = self.item.centres
        at = (c[:, :2] - self.centre) @ np.linalg.inv(self.turn).T
        radius = np.sqrt(c[:, 2:] / np.pi) * self.scale
        return np.concatenate([(at + 1) * self.size / 2, radius], 1).astype(np.float32)


def vote_target(window, inside):
    """-> float32 [3, S, S]: way to the object's centre (y, x) in px, and the pixel's weight 1 / radius."""
    labels, real = window.labels()
    centres = window.centres()
    at = np.arange(window.size, dtype=np.float32) + 0.5
    good = real & (labels > 0) & inside
    way_y = np.where(good, centres[labels, 0] - at[:, None], 0)
    way_x = np.where(good, centres[labels, 1] - at[None], 0)
    weight = np.where(good, 1 / np.maximum(centres[labels, 2], MIN_RADIUS), 0)
    return np.stack([way_y, way_x, weight]).astype(np.float32), labels


class Sampler:
    """Random augmented crops; see the module's note on seeds."""

    def __init__(self, items, recipe, seed):
        self.items, self.recipe, self.seed = items, recipe, seed
        self.weights = item_weights(items, recipe["shares"])

    def batch(self, step):
        """-> float32 (x [N,1,S,S], target [N,3 or 6,S,S]: foreground, distance, contact, see vote_target)."""
        rng = np.random.default_rng([self.seed, step])
        crops = [self.crop(rng) for _ in range(self.recipe["batch"])]
        t = torch.from_numpy(np.stack(crops))
        return t[:, :1], t[:, 1:]

    def crop(self, rng):
        """One augmented crop, float32 [4 or 7, S, S]."""
        item = self.items[rng.choice(len(self.items), p=self.weights)]
        size = self.recipe["crop"]
        low, high = self.recipe["zoom"].get(item.dataset, self.recipe["zoom"]["default"])
        zoom = np.exp(rng.uniform(np.log(low), np.log(high)))
        window = Window(item, size, zoom, rng)
        planes = window.planes()
        if rng.random() < self.recipe.get("prefer_contact", 0.0):
            # of two windows the one with more touching objects: that is what is hard
            other = Window(item, size, zoom, rng)
            window, planes = max((window, planes), (other, other.planes()), key=lambda p: p[1][3].sum())
        if rng.random() < self.recipe.get("empty", {}).get(item.dataset, 0.0):
            planes = empty_field(item, size, rng, planes)
        planes[1] = planes[1] >= 0.5
        planes[2] *= planes[1]
        if self.recipe.get("votes"):
            votes, labels = vote_target(window, planes[1] > 0)
            if rng.random() < self.recipe.get("dim_objects", 0.0):
                dim_objects(planes, labels, rng)
            planes = np.concatenate([planes, votes])
        rim, bar = self.recipe.get("clutter", {}).get(item.dataset, (0.0, 0.0))
        if rng.random() < rim:
            dark_rim(planes, rng)
        if rng.random() < bar:
            scale_bar(planes, rng)
        planes[0] = vary_intensity(planes[0], planes[1], rng)
        return planes


def dim_objects(planes, labels, rng):
    """Make some objects dimmer (nearer to the background's grey) than the others, in place."""
    ground = np.median(planes[0][planes[1] == 0]) if (planes[1] == 0).any() else 0.0
    count = int(labels.max()) + 1
    factor = np.where(rng.random(count) < rng.uniform(0.2, 0.8), rng.uniform(0.25, 1.0, count), 1.0)
    factor[0] = 1.0
    smooth = ndimage.gaussian_filter(factor[labels], 1.0)
    planes[0] = np.clip(ground + (planes[0] - ground) * smooth, 0, 1)


def empty_field(item, size, rng, otherwise):
    """A background window stretched to full contrast, as an image without objects looks.

    Returns `otherwise` when five tries hit no window without foreground.
    """
    for _ in range(5):
        planes = Window(item, size, np.exp(rng.uniform(np.log(2.2), np.log(5.0))), rng).planes()
        if planes[1].max() == 0:
            lo, hi = np.percentile(planes[0], [1.0, 99.8])
            planes[0] = np.clip((planes[0] - lo) / max(hi - lo, 0.02), 0, 1)
            return planes
    return otherwise


def vary_intensity(x, foreground, rng):
    """Grey crop [S, S] in 0..1 -> the same with other contrast, blur and noise."""
    if rng.random() < 0.25:
        # what a user's own crop of the image would look like; crops without objects
        # become the empty fields in which nothing must be found
        lo, hi = np.percentile(x, [1.0, 99.8])
        if hi - lo > 0.08:
            x = np.clip((x - lo) / (hi - lo), 0, 1)
    if rng.random() < 0.5:
        x = np.power(x, np.exp(rng.uniform(-0.45, 0.45)))
    if rng.random() < 0.5:
        gain, offset = rng.uniform(0.7, 1.3), rng.uniform(-0.08, 0.08)
        x = np.clip(x * gain + offset, 0, 1)
    kind = rng.random()
    if kind < 0.15:
        x = ndimage.gaussian_filter(x, rng.uniform(0.4, 1.4))
    elif kind < 0.25:
        x = x + rng.uniform(0.3, 1.0) * (x - ndimage.gaussian_filter(x, 1.5))
    if rng.random() < 0.3:
        sigma = rng.uniform(0.005, 0.05)
        x = x + sigma * rng.standard_normal(x.shape).astype(np.float32)
    if rng.random() < 0.15:
        # uneven lighting
        ramp = np.linspace(-1, 1, x.shape[0], dtype=np.float32)
        x = x + rng.uniform(-0.12, 0.12) * ramp[:, None] + rng.uniform(-0.12, 0.12) * ramp[None]
    return np.clip(x, 0, 1).astype(np.float32)
