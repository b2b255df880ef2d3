"""Check that the trained network, the exported file and the worker's C interface compute the same.

    parity.py --model segworker/models/nuclei [--checkpoint FILE] [--data ../shared/data]

Prints the largest absolute difference between any two of them over a few inputs.  The worker's interface
(segworker/torch_shim.cc) is compiled into a shared object for this; that takes about a minute.
Without --checkpoint only the exported file and the interface are compared.
"""
import argparse
import ctypes
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import torch

from export import load_network

ROOT = pathlib.Path(__file__).resolve().parents[2]
ERR_BYTES = 1 << 16  # more than an err_t needs


def build_interface(folder):
    """Compile torch_shim.cc and what it needs; returns the loaded library."""
    base = pathlib.Path(torch.__file__).resolve().parent
    include = [p for p in (base / "include", pathlib.Path("/usr/include/torch/csrc/api/include")) if p.exists()]
    include += [p for p in (base / "include/torch/csrc/api/include",) if p.exists()]
    subprocess.run(["gcc", "-std=c17", "-D_GNU_SOURCE", "-fPIC", "-I", str(ROOT), "-c", str(ROOT / "common/err.c"),
                    "-o", str(folder / "err.o")], check=True)
    library = folder / "interface.so"
    subprocess.run(["g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-I", str(ROOT), *[f"-isystem{p}" for p in include],
                    str(ROOT / "segworker/torch_shim.cc"), str(folder / "err.o"), "-L", str(base / "lib"),
                    "-ltorch", "-ltorch_cpu", "-lc10", "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


class Interface:
    """A model behind torch_model_load and torch_model_run."""

    def __init__(self, library, file, planes):
        self.library, self.planes = library, planes
        self.err, self.model = ctypes.create_string_buffer(ERR_BYTES), ctypes.c_void_p()
        if library.torch_model_load(str(file).encode(), b"cpu", ctypes.byref(self.model), self.err) != 0:
            raise SystemExit("the worker's interface cannot load the model")

    def __call__(self, x):
        n, inputs, h, w = x.shape
        x, out = np.ascontiguousarray(x.numpy()), np.zeros((n, self.planes, h, w), np.float32)
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, out)]
        if self.library.torch_model_run(self.model, pointers[0], n, inputs, h, w, pointers[1], self.planes, self.err):
            raise SystemExit("the worker's interface cannot run the model")
        return torch.from_numpy(out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True, type=pathlib.Path)
    ap.add_argument("--checkpoint", type=pathlib.Path)
    a = ap.parse_args()
    spec = json.loads((a.model / "model.json").read_text())
    file = a.model / spec["file"]
    ways = {"exported": torch.jit.load(str(file)).eval()}
    if a.checkpoint:
        ways["eager"] = load_network(a.checkpoint)[0]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        ways["interface"] = Interface(build_interface(pathlib.Path(folder)), file, len(spec["output"]["channels"]))
        gen, worst = torch.Generator().manual_seed(3), {}
        for h, w in ((64, 64), (64, 128), (320, 320), (512, 512), (128, 320)):
            x = torch.rand(1, 1, h, w, generator=gen)
            out = {name: way(x) for name, way in ways.items()}
            for name in out:
                worst[name] = max(worst.get(name, 0.0), float((out[name] - out["exported"]).abs().max()))
    for name, difference in worst.items():
        print(f"{name}: at most {difference:.2e} from the exported file")


if __name__ == "__main__":
    main()
