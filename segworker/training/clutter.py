"""Things that are in real images but are no objects, painted into training crops.

Few training images show them, and each was taken for an object at first: the dark rim of a
well or droplet, and scale bars burnt into the picture.
"""
import numpy as np


def dark_rim(planes, rng):
    """Darken one side of a crop smoothly, as a rim does; float32 [4, S, S], in place.

    Sides that hold objects are left alone: an object in the dark would be invisible.
    """
    size = planes.shape[1]
    yy, xx = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    for _ in range(4):
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 4.0)
        reach = rng.uniform(0.1, 0.6)
        cy, cx = (reach - radius) * np.sin(angle), (reach - radius) * np.cos(angle)
        # > 0 outside a circle whose edge lies `reach` from the crop's centre
        outside = np.hypot(yy - cy, xx - cx) - radius
        if planes[1][outside > 0].sum() > 0:
            continue
        width = rng.uniform(0.04, 0.3)
        shade = np.clip(outside / width, 0, 1)
        shade = shade * shade * (3 - 2 * shade) * rng.uniform(0.6, 1.0)
        planes[0] *= 1 - shade
        return


def scale_bar(planes, rng):
    """Paint a bar, alone or in a box, bright or dark, over the crop, in place."""
    size = planes.shape[1]
    h, w = int(rng.integers(3, 12)), int(rng.integers(25, size // 2))
    margin = int(rng.integers(3, 14)) if rng.random() < 0.6 else 0
    y = int(rng.integers(0, size - h - 2 * margin))
    x = int(rng.integers(0, size - w - 2 * margin))
    white = rng.random() < 0.75
    box = (slice(None), slice(y, y + h + 2 * margin), slice(x, x + w + 2 * margin))
    planes[box] = 0
    if margin:
        planes[box][0] = 1.0 if white else 0.0
        white = not white
        # marks like the digits beside a bar
        for k in range(int(rng.integers(0, 5))):
            top = y + int(rng.integers(1, margin + 1))
            planes[0, top:top + margin, x + 4 + 6 * k:x + 7 + 6 * k] = float(white)
    planes[0, y + margin:y + margin + h, x + margin:x + margin + w] = float(white)
