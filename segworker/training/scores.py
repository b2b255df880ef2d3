"""Scores of label images against true label images, and the classical baseline.

AP(t) = TP / (TP + FP + FN) over all images of a set pooled, where an object is found (TP)
when it is matched one-to-one with intersection over union >= t.
IoU is the mean over images of the foreground's intersection over union.
"""
import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

THRESHOLDS = (0.5, 0.75, 0.9)


def iou_matrix(truth, found):
    """Label images -> IoU [true objects, found objects]."""
    t = np.unique(truth, return_inverse=True)[1].reshape(truth.shape) if (truth == 0).any() else truth
    p = np.unique(found, return_inverse=True)[1].reshape(found.shape) if (found == 0).any() else found
    nt, n = t.max(), p.max()
    inter = np.bincount((t * (n + 1) + p).ravel(), minlength=(nt + 1) * (n + 1)).reshape(nt + 1, n + 1)
    union = inter.sum(1)[1:, None] + inter.sum(0)[None, 1:] - inter[1:, 1:]
    return inter[1:, 1:] / np.maximum(union, 1)


def foreground_iou(truth, found):
    """IoU of the foregrounds; 1 when both are empty."""
    union = ((truth > 0) | (found > 0)).sum()
    return ((truth > 0) & (found > 0)).sum() / union if union else 1.0


class Scores:
    """Adds up images; `result()` gives the figures of a set."""

    def __init__(self):
        self.tp = np.zeros(len(THRESHOLDS))
        self.errors = self.tp.copy()
        self.ious = []
        self.true = self.found = 0

    def add(self, truth, found):
        m = iou_matrix(truth, found)
        self.true += m.shape[0]
        self.found += m.shape[1]
        self.ious.append(foreground_iou(truth, found))
        for k, t in enumerate(THRESHOLDS):
            hits = 0
            if m.size:
                r, c = linear_sum_assignment(-((m >= t) + m / (2 * min(m.shape))))
                hits = int((m[r, c] >= t).sum())
            self.tp[k] += hits
            self.errors[k] += m.shape[0] + m.shape[1] - 2 * hits

    def result(self):
        ap = self.tp / np.maximum(self.tp + self.errors, 1e-9)
        out = {"images": len(self.ious), "objects": self.true, "found": self.found}
        out.update({f"AP{int(t * 100)}": round(float(a), 4) for t, a in zip(THRESHOLDS, ap)})
        out["IoU"] = round(float(np.mean(self.ious)), 4)
        return out


def otsu_watershed(grey):
    """Baseline without learning: Otsu threshold, then watershed of the distance map.

    Objects are taken to be the rarer side of the threshold, so that dark objects on a
    bright ground work too.
    """
    from skimage.feature import peak_local_max
    from skimage.filters import threshold_otsu
    from skimage.segmentation import watershed
    smooth = ndimage.gaussian_filter(grey, 1.0)
    if smooth.max() <= smooth.min():
        return np.zeros(grey.shape, int)
    mask = smooth > threshold_otsu(smooth)
    if mask.mean() > 0.5:
        mask = ~mask
    mask = ndimage.binary_fill_holes(mask)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.5)
    peaks = peak_local_max(distance, min_distance=5, labels=ndimage.label(mask)[0])
    seeds = np.zeros(grey.shape, int)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-distance, seeds, mask=mask)
    area = np.bincount(labels.ravel())
    return np.where(area[labels] >= 20, labels, 0)
