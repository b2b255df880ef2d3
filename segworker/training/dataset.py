"""Training data: reading, targets, and augmented crops.

An `Item` holds one image at the working scale as uint8/float16 planes (see `load_item`);
`Sampler.batch(step)` cuts random crops out of them.  Everything random is derived from
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
Item = collections.namedtuple("Item", "dataset file group planes")


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


def validation_files(name):
    """File names of the committed validation list."""
    return (HERE / "splits" / f"{name}.txt").read_text().split()


def families():
    """{dsb2018 file: family}."""
    with open(HERE / "splits" / "dsb2018_families.csv", newline="") as f:
        return {r["file"]: r["family"] for r in csv.DictReader(f)}


def split(data, name):
    """(training rows, validation rows) of a data set."""
    held = set(validation_files(name))
    rows = read_manifest(data, name)
    return [r for r in rows if r["file"] not in held], [r for r in rows if r["file"] in held]


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


def load_item(data, name, row, group, input_spec):
    """Image + mask -> Item with planes uint8 [4, h, w]: grey, foreground, distance, contact.

    All are scaled to 0..255; h and w are the working size the worker would use.
    """
    grey = to_grey(read_image(image_path(data, name, row["file"])))
    h, w = working_size(*grey.shape, input_spec["scale"])
    x = normalise(resize_triangle(grey, h, w), input_spec["normalisation"])
    x = np.zeros((h, w), np.float32) if x is None else x
    labels = Image.fromarray(np.asarray(Image.open(mask_path(data, name, row["file"]))).astype(np.int32), mode="I")
    labels = np.asarray(labels.resize((w, h), Image.NEAREST)).astype(np.int32)
    planes = np.stack([x, labels > 0, distance_target(labels), contact_map(labels)])
    return Item(name, row["file"], group, np.round(planes * 255).astype(np.uint8))


def load_items(data, names, input_spec, cache_dir):
    """Training items of the data sets, decoded once and kept in cache_dir."""
    key = hashlib.sha1(repr((names, input_spec, [validation_files(n) for n in names])).encode()).hexdigest()[:12]
    path = pathlib.Path(cache_dir) / f"items_{key}.pt"
    if path.exists():
        return [Item(*t) for t in torch.load(path)]
    family = families() if "dsb2018" in names else {}
    items = []
    for name in names:
        for row in split(data, name)[0]:
            group = family.get(row["file"], name)
            items.append(load_item(data, name, row, group, input_spec))
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


class Sampler:
    """Random augmented crops; see the module's note on seeds."""

    def __init__(self, items, recipe, seed):
        self.items, self.recipe, self.seed = items, recipe, seed
        self.weights = item_weights(items, recipe["shares"])

    def batch(self, step):
        """-> float32 (x [N,1,S,S], target [N,3,S,S]: foreground, distance, contact)."""
        rng = np.random.default_rng([self.seed, step])
        crops = [self.crop(rng) for _ in range(self.recipe["batch"])]
        t = torch.from_numpy(np.stack(crops))
        return t[:, :1], t[:, 1:]

    def crop(self, rng):
        """One augmented crop, float32 [4, S, S]."""
        item = self.items[rng.choice(len(self.items), p=self.weights)]
        size = self.recipe["crop"]
        low, high = self.recipe["zoom"].get(item.dataset, self.recipe["zoom"]["default"])
        zoom = np.exp(rng.uniform(np.log(low), np.log(high)))
        planes = random_affine(item.planes, size, zoom, rng)
        if rng.random() < self.recipe.get("prefer_contact", 0.0):
            # of two windows the one with more touching objects: that is what is hard
            other = random_affine(item.planes, size, zoom, rng)
            planes = max(planes, other, key=lambda p: p[3].sum())
        if rng.random() < self.recipe.get("empty", {}).get(item.dataset, 0.0):
            planes = empty_field(item, size, rng, planes)
        planes[1] = planes[1] >= 0.5
        planes[2] *= planes[1]
        rim, bar = self.recipe.get("clutter", {}).get(item.dataset, (0.0, 0.0))
        if rng.random() < rim:
            dark_rim(planes, rng)
        if rng.random() < bar:
            scale_bar(planes, rng)
        planes[0] = vary_intensity(planes[0], planes[1], rng)
        return planes


def empty_field(item, size, rng, otherwise):
    """A background window stretched to full contrast, as an image without objects looks.

    Returns `otherwise` when five tries hit no window without foreground.
    """
    for _ in range(5):
        planes = random_affine(item.planes, size, np.exp(rng.uniform(np.log(2.2), np.log(5.0))), rng)
        if planes[1].max() == 0:
            lo, hi = np.percentile(planes[0], [1.0, 99.8])
            planes[0] = np.clip((planes[0] - lo) / max(hi - lo, 0.02), 0, 1)
            return planes
    return otherwise


def random_affine(planes, size, zoom, rng):
    """Rotate, flip, zoom and shift: uint8 [4, h, w] -> float32 [4, size, size] in 0..1."""
    _, h, w = planes.shape
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.4 else rng.integers(4) * np.pi / 2
    flip = 1.0 if rng.random() < 0.5 else -1.0
    stretch = np.exp(rng.uniform(-0.1, 0.1))
    # half the crop's extent in source px; the centre stays so far from the edge if it can
    half = size / zoom / 2
    cy = rng.uniform(min(half, h * 0.3), max(h - half, h * 0.7))
    cx = rng.uniform(min(half, w * 0.3), max(w - half, w * 0.7))
    reach = int(np.ceil(half * 1.6)) + 2
    y0, y1 = max(0, int(cy) - reach), min(h, int(cy) + reach)
    x0, x1 = max(0, int(cx) - reach), min(w, int(cx) + reach)
    part = torch.from_numpy(planes[:, y0:y1, x0:x1].astype(np.float32) / 255.0)
    ph, pw = y1 - y0, x1 - x0
    c, s = np.cos(angle), np.sin(angle)
    kx, ky = half * stretch, half / stretch
    theta = torch.tensor([[[c * kx * flip * 2 / pw, -s * ky * 2 / pw, (cx - x0) * 2 / pw - 1],
                           [s * kx * flip * 2 / ph, c * ky * 2 / ph, (cy - y0) * 2 / ph - 1]]], dtype=torch.float32)
    grid = F.affine_grid(theta, (1, 4, size, size), align_corners=False)
    out = F.grid_sample(part[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return out[0].numpy()


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
