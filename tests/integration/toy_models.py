"""Small TorchScript models that compute what they give from the pixels, in the forms that other projects export.

They are scripted, not traced, and know nothing of this system: the same files would run anywhere.
"""
import hashlib
import json
import math
from typing import List, Tuple

import torch

STEPS = 24


class Star(torch.nn.Module):
    """As StarDist exports: (probability [n, 1, h/grid, w/grid], distances [n, rays, h/grid, w/grid]), distances in px of
    the image along rays that begin at +x and turn towards +y; each is counted in whole steps over bright pixels."""

    def __init__(self, rays: int, grid: int):
        super().__init__()
        self.grid = grid
        self.reach = STEPS
        angles = [2 * math.pi * k / rays for k in range(rays)]
        self.dx = [[round(math.cos(a) * t) for t in range(1, STEPS + 1)] for a in angles]
        self.dy = [[round(math.sin(a) * t) for t in range(1, STEPS + 1)] for a in angles]

    def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        h, w = x.shape[2], x.shape[3]
        pad = self.reach
        bright = (x[:, 0:1] > 0.5).float()
        wide = torch.nn.functional.pad(bright, [pad, pad, pad, pad])
        rays: List[torch.Tensor] = []
        for k in range(len(self.dx)):
            alive = bright
            length = bright * 0.5  # from the pixel's centre to its edge
            for t in range(len(self.dx[k])):
                dx, dy = self.dx[k][t], self.dy[k][t]
                alive = alive * wide[:, :, pad + dy:pad + dy + h, pad + dx:pad + dx + w]
                length = length + alive
            rays.append(length)
        dist = torch.cat(rays, 1)
        shortest = dist.min(dim=1, keepdim=True)[0]
        longest = dist.max(dim=1, keepdim=True)[0].clamp(min=1.0)
        prob = bright * shortest / longest  # 1 in the middle of a disk, small at its rim
        return prob[:, :, ::self.grid, ::self.grid], dist[:, :, ::self.grid, ::self.grid]


class Labels(torch.nn.Module):
    """As InstanSeg exports: a label map [1, 1, h, w]; pixels that touch get the largest index among them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, w = x.shape[2], x.shape[3]
        bright = (x.mean(dim=1, keepdim=True) > 0.5).float()
        ids = (torch.arange(h * w, device=x.device).reshape(1, 1, h, w).float() + 1) * bright
        for _ in range(64):
            across = torch.nn.functional.max_pool2d(ids, [1, 3], stride=1, padding=[0, 1])
            down = torch.nn.functional.max_pool2d(ids, [3, 1], stride=1, padding=[1, 0])
            ids = torch.maximum(across, down) * bright
        return ids


class Logits(torch.nn.Module):
    """Class scores [n, 3, h, w]: background, rim, inside."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        soft = torch.nn.functional.avg_pool2d(x, [3, 3], stride=1, padding=1)
        inside = (soft - 0.5) * 20
        rim = 1 - torch.abs(inside)
        return torch.cat([-inside, rim, inside], 1)


class Greedy(torch.nn.Module):
    """Logits that ask for far more memory than there is when a call has more than `most` pixels."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most
        self.inner = Logits()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() > self.most:
            x = x + torch.empty([1 << 48])[0]
        return self.inner(x)


PERCENTILE = {"kind": "percentile", "low": 1, "high": 99.8, "clipMin": 0, "clipMax": 1}


def write(folder, name, module, output, postprocess, *, colour="grey", channels=1, tile=128, halo=32, divisor=16,
          normalisation=None, version="1.0", scale=None, **more):
    """A model folder FOLDER/NAME with the module scripted; returns its path."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    torch.jit.script(module.eval()).save(str(path / "model.pt"))
    manifest = {
        "schema": 1, "name": name, "version": version, "title": name, "license": "MIT", "file": "model.pt",
        "sha256": hashlib.sha256((path / "model.pt").read_bytes()).hexdigest(),
        "input": {"channels": channels, "colour": colour, "pixelUnit": "native", "scale": scale or {"kind": "native"},
                  "tile": tile, "halo": halo, "divisor": divisor, "normalisation": normalisation or PERCENTILE, **more},
        "output": output, "postprocess": postprocess,
    }
    (path / "model.json").write_text(json.dumps(manifest))
    return path


def star(folder, name="star", grid=2, rays=32, **kw):
    return write(folder, name, Star(rays, grid), {"kind": "star_convex", "rays": rays, "grid": grid},
                 {"threshold": 0.5, "nmsThreshold": 0.4, "minArea": 20, "maxHoleArea": 0}, **kw)


def labels(folder, name="labels", **kw):
    return write(folder, name, Labels(), {"kind": "labels"}, {"minArea": 20, "maxHoleArea": 0}, **kw)


def logits(folder, name="logits", module=None, **kw):
    return write(folder, name, module or Logits(),
                 {"kind": "semantic", "activation": "softmax", "channels": ["background", "rim", "inside"],
                  "foreground": ["rim", "inside"]}, {"threshold": 0.5, "minArea": 20, "maxHoleArea": 0}, **kw)


def package(folder, name, module, inputs, outputs, *, config=None, weights=None, version="0.5.3"):
    """A bioimage.io package FOLDER/NAME."""
    import yaml
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    torch.jit.script(module.eval()).save(str(path / "weights.pt"))
    rdf = {
        "format_version": version, "type": "model", "name": "Toy “package”", "description": "for tests",
        "license": "CC-BY-4.0", "version": "0.1.0",
        "weights": weights or {"torchscript": {"source": "weights.pt", "pytorch_version": "1.13",
                                               "sha256": hashlib.sha256((path / "weights.pt").read_bytes()).hexdigest()}},
        "inputs": inputs, "outputs": outputs, "config": config or {},
    }
    (path / "rdf.yaml").write_text(yaml.safe_dump(rdf, allow_unicode=True))
    return path
