"""Label images for the benchmarks: many objects of uneven outline, every fourth with a hole, from a seed."""
import numpy as np


def label_image(count, cell, seed=1):
    """About `count` objects, one per cell of cell x cell px: (labels int32, grey float32, count)."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(count)))
    labels = np.zeros((side * cell, side * cell), np.int32)
    yy, xx = np.mgrid[0:cell, 0:cell] + 0.5
    for k in range(count):
        cy, cx = cell / 2 + rng.uniform(-0.06, 0.06, 2) * cell
        a = np.arctan2(yy - cy, xx - cx)
        r = np.hypot(yy - cy, xx - cx)
        edge = rng.uniform(0.28, 0.38) * cell * np.ones_like(a)
        for lobes in (2, 3, 5):
            edge *= 1 + rng.uniform(0, 0.1) * np.sin(lobes * a + rng.uniform(0, 2 * np.pi))
        inside = r < edge
        if k % 4 == 3:
            inside &= r > 0.3 * edge
        y, x = divmod(k, side)
        part = labels[y * cell:(y + 1) * cell, x * cell:(x + 1) * cell]
        part[inside] = k + 1
    grey = (40 + 160 * (labels > 0) + rng.normal(0, 10, labels.shape)).clip(0, 255).astype(np.float32)
    return labels, grey


def save(path, labels, grey):
    with open(path, "wb") as f:
        np.array([labels.shape[1], labels.shape[0], labels.max()], np.int32).tofile(f)
        np.ascontiguousarray(labels, np.int32).tofile(f)
        np.ascontiguousarray(grey, np.float32).tofile(f)
