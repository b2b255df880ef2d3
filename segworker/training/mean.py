"""Mean of the weights of several checkpoints of one training, as a checkpoint that export.py and parity.py take.

    mean.py --out mean.ckpt A.ckpt A.ckpt:best B.ckpt

Networks along one course of training mostly lie in one valley of the loss, and their mean makes fewer of the
errors that only one of them makes (stochastic weight averaging, Izmailov et al. 2018).  FILE stands for the
moving average in it, FILE:best for the weights that were best on the tuning images.
"""
import argparse
import pathlib

import torch


def weights_of(text):
    """"FILE" or "FILE:best" -> (state dictionary, checkpoint dictionary)."""
    file, _, key = text.partition(":")
    state = torch.load(file, map_location="cpu")
    return state[key or "average"], state


def mean(states):
    """State dictionaries -> their mean; whole numbers (BatchNorm's counts) are the last one's."""
    last = states[-1]
    return {k: sum(s[k] for s in states) / len(states) if v.dtype.is_floating_point else v for k, v in last.items()}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True, type=pathlib.Path)
    ap.add_argument("checkpoints", nargs="+", metavar="FILE[:best]", help="the last one gives model, step and seed")
    a = ap.parse_args()
    pairs = [weights_of(c) for c in a.checkpoints]
    last = pairs[-1][1]
    if len({s["model"] for _, s in pairs}) > 1:
        ap.error("these are checkpoints of different models")
    torch.save({"model": last["model"], "average": mean([w for w, _ in pairs]), "best": None, "step": last["step"],
                "seed": last["seed"], "start": last.get("start"), "mean_of": len(pairs)}, a.out)


if __name__ == "__main__":
    main()
