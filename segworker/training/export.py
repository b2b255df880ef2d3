"""Export a checkpoint as a model folder: model.pt and model.json.

    export.py --checkpoint FILE --out segworker/models/nuclei

Prints the largest difference between the trained network and the exported file.
"""
import argparse
import datetime
import hashlib
import json
import pathlib
import time

import torch

from dataset import rows_of
from network import DIVISOR, Segmenter, UNet, VOTE_UNIT
from recipes import MODELS


def load_network(path):
    """Checkpoint -> (best averaged network in eval mode, checkpoint dictionary)."""
    state = torch.load(path, map_location="cpu")
    net = UNet(votes=MODELS[state["model"]]["recipe"].get("votes", False))
    net.load_state_dict(state.get("best") or state["average"])
    return Segmenter(net, MODELS[state["model"]].get("enlarge", 1.0)).eval(), state


def parity(eager, file):
    """Largest absolute difference between eager and exported outputs over a few sizes; ways to centres, which
    are in px, count in units of VOTE_UNIT px, as the network gives them."""
    scripted = torch.jit.load(str(file)).eval()
    gen = torch.Generator().manual_seed(3)
    worst = 0.0
    with torch.no_grad():
        for n, h, w in ((1, 64, 64), (2, 64, 128), (1, 512, 512), (1, 128, 320)):
            x = torch.rand(n, 1, h, w, generator=gen)
            difference = (eager(x) - scripted(x)).abs().amax((0, 2, 3))
            if len(difference) == 3:
                difference[1:] /= VOTE_UNIT
            worst = max(worst, float(difference.max()))
    return worst


def seconds_per_tile(file, size=512, threads=2):
    """Best-of-five time of the exported file for one size x size image."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    net = torch.jit.load(str(file)).eval()
    x = torch.rand(1, 1, size, size)
    times = []
    with torch.no_grad():
        for _ in range(7):
            start = time.perf_counter()
            net(x)
            times.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    return min(times[2:])


def count_images(data_names, data):
    """{"train": n, "tune": n, "held": n} over the data sets, or nulls when the data is not at hand."""
    parts = ("train", "tune", "held")
    if data is None:
        return dict.fromkeys(parts)
    return {p: sum(len(rows_of(data, n, p)) for n in data_names) for p in parts}


def output_of(recipe):
    """The `output` block of model.json."""
    if recipe.get("votes"):
        return {"kind": "foreground_votes", "channels": ["foreground", "down", "right"]}
    return {"kind": "foreground_distance", "channels": ["foreground", "distance"]}


def describe(name, state, pt, data):
    """Contents of model.json without scores."""
    cfg = MODELS[name]
    return {
        "schema": 1, "name": name, "version": cfg.get("version", "1.0.0"), "title": cfg["title"], "description": cfg["description"],
        "license": "MIT", "file": "model.pt", "sha256": hashlib.sha256(pt.read_bytes()).hexdigest(),
        "input": cfg["input"],
        "output": output_of(cfg["recipe"]),
        "postprocess": cfg["postprocess"],
        "training": {"data": cfg["data"], "images": count_images(cfg["data"], data), "steps": state["step"],
                     "seed": state["seed"], "start": state.get("start"),
                     **({"meanOf": state["mean_of"]} if "mean_of" in state else {}), "torch": torch.__version__,
                     "date": datetime.date.today().isoformat(),
                     "command": f"python3 segworker/training/train.py --model {name} --data ../shared/data "
                                f"--out segworker/models/{name} --steps {state['step']}"},
        "scores": {},
    }


def export_checkpoint(checkpoint, out, data=None):
    """Write OUT/model.pt and OUT/model.json; scores are filled in by evaluate.py."""
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    net, state = load_network(checkpoint)
    pt = out / "model.pt"
    example = torch.rand(1, 1, 8 * DIVISOR, 8 * DIVISOR)
    with torch.no_grad():
        frozen = torch.jit.freeze(torch.jit.trace(net, example))
    frozen.save(str(pt))
    difference = parity(net, pt)
    print(f"eager and exported differ by at most {difference:.2e}")
    if difference > 1e-4:
        raise SystemExit("the exported model does not compute what was trained")
    print(f"model.pt {pt.stat().st_size / 1e6:.2f} MB, 512x512 with 2 threads {seconds_per_tile(pt):.3f} s")
    spec = describe(state["model"], state, pt, data)
    (out / "model.json").write_text(json.dumps(spec, indent=2) + "\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--checkpoint", required=True, type=pathlib.Path)
    ap.add_argument("--out", required=True, type=pathlib.Path)
    ap.add_argument("--data", type=pathlib.Path, help="data folder, for the image counts in model.json")
    a = ap.parse_args()
    export_checkpoint(a.checkpoint, a.out, a.data)


if __name__ == "__main__":
    main()
