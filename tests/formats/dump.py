"""Runs image_dump, which reads a page whole and in rectangles and fails when they differ."""
import json
import os
import pathlib
import subprocess
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("SPHEROSEG_BUILD", ROOT / "build")) / "formats/image_dump"
TYPES = {1: np.uint8, 2: np.uint16, 3: np.uint32, 4: np.float32}


def dump(path, *options, timeout=60):
    """(what is known, samples of height x width x channels); samples are None when the file is refused."""
    with tempfile.NamedTemporaryFile() as out:
        p = subprocess.run([PROGRAM, *map(str, options), str(path), out.name], capture_output=True, text=True, timeout=timeout,
                           check=False)
        assert p.returncode in (0, 1), f"{path}: exit status {p.returncode}: {p.stderr[-2000:]}"
        info = json.loads(p.stdout)
        if p.returncode == 1:
            return info, None
        if "--grey" in options:
            return info, np.fromfile(out.name, np.float32).reshape(info["height"], info["width"], 1)
        a = np.fromfile(out.name, TYPES[info["sample"]])
        return info, a.reshape(info["height"], info["width"], info["channels"])
