"""Train one model and write its checkpoint.

    python3 segworker/training/train.py --model nuclei --data ../shared/data \\
        --out segworker/models/nuclei --steps 20000 [--minutes M] [--resume]

Ends after --steps, or after --minutes of wall time if that comes first.  The learning rate
falls to zero at that end.  At the end the model is exported to --out; export.py can also
export a checkpoint of a running training.
"""
import argparse
import copy
import datetime
import json
import math
import pathlib
import shutil
import subprocess
import sys
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F

from dataset import Sampler, load_items
from export import export_checkpoint
from network import UNet, VOTE_UNIT, parameter_count
from recipes import MODELS

SEED = 1
PAUSE = 10.0  # s; a step that takes longer was stopped from outside, and the learning rate should not fall meanwhile
MEET = 10  # steps between meetings of several workers; checks and checkpoints fall on multiples of it


def loss_of(out, target, recipe):
    """Network output [N,2 or 4,S,S], target as of Sampler.batch -> scalar loss."""
    fg, dist, contact = target[:, 0], target[:, 1], target[:, 2]
    p = torch.sigmoid(out[:, 0])
    # few pixels decide whether two objects are split: they count more
    weight = 1 + 2 * contact
    if "small_weight" in recipe:
        # an object half as wide as `small_radius` counts twice as much per pixel, up to 1 + small_weight
        weight = weight + (recipe["small_radius"] * target[:, 5] - 1).clamp(0, recipe["small_weight"])
    bce = F.binary_cross_entropy_with_logits(out[:, 0], fg, weight=weight)
    overlap = (p * fg).sum((1, 2))
    dice = 1 - (2 * overlap + 50) / (p.sum((1, 2)) + fg.sum((1, 2)) + 50)
    d = F.smooth_l1_loss(torch.sigmoid(out[:, 1]), dist, beta=0.1, reduction="none")
    dist_loss = (d * (0.3 + fg + recipe["contact_weight"] * contact)).mean()
    loss = bce + 0.5 * dice.mean() + recipe["distance_weight"] * dist_loss
    if recipe.get("votes"):
        # in units of the object's radius, so that small objects count as much as big ones
        size = target[:, 5:6]
        v = F.smooth_l1_loss(out[:, 2:4] * VOTE_UNIT * size, target[:, 3:5] * size, beta=0.1, reduction="none")
        counts = (size[:, 0] > 0) * (1 + recipe["contact_weight"] * contact)
        loss = loss + recipe["vote_weight"] * (v.sum(1) * counts).mean()
    return loss


class Average:
    """Exponential moving average of a network: the weights that are exported."""

    def __init__(self, net):
        self.net = copy.deepcopy(net)
        self.count = 0

    @torch.no_grad()
    def update(self, net):
        self.count += 1
        keep = min(0.998, self.count / (self.count + 10))
        for a, b in zip(self.net.state_dict().values(), net.state_dict().values()):
            if a.dtype.is_floating_point:
                a.mul_(keep).add_(b, alpha=1 - keep)
            else:
                a.copy_(b)


def learning_rate(peak, done):
    """One cycle: linear rise over the first 4 %, cosine fall to 0 at done = 1."""
    if done < 0.04:
        return peak * (0.05 + 0.95 * done / 0.04)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (done - 0.04) / 0.96)))


class Tuning:
    """Loss on fixed crops of the tuning images: tells when to stop and which weights to keep."""

    BATCHES, SEED = 12, 7

    def __init__(self, items, recipe):
        sampler = Sampler(items, {**recipe, **recipe.get("late", {})}, self.SEED)
        self.recipe = recipe
        self.batches = [sampler.batch(k) for k in range(self.BATCHES)]

    @torch.no_grad()
    def loss(self, net, bf16):
        net.eval()
        total = 0.0
        for x, target in self.batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                out = net(x.contiguous(memory_format=torch.channels_last))
            total += float(loss_of(out.float(), target, self.recipe))
        return total / len(self.batches)


class Run:
    """A training run with its whole state on disk (NAME.ckpt in the work folder).

    Crops depend on (seed, step) only and the network has no random parts, so the saved step is the state of the
    random numbers too.
    """

    def __init__(self, args):
        self.args, self.cfg = args, MODELS[args.model]
        torch.manual_seed(SEED)
        self.net = UNet(votes=self.cfg["recipe"].get("votes", False)).to(memory_format=torch.channels_last)
        self.opt = torch.optim.AdamW(self.net.parameters(), lr=1e-3, weight_decay=1e-2)
        self.step, self.seconds, self.start = 0, 0.0, None
        self.best, self.best_loss, self.waiting = None, math.inf, 0
        self.path = args.work / f"{args.model}.ckpt"
        if args.init and not (args.resume and self.path.exists()):
            self.start = warm_start(self.net, args.init)
        self.average = Average(self.net)
        if args.resume and self.path.exists():
            self.load()

    def load(self):
        """Continue from the checkpoint."""
        s = torch.load(self.path)
        self.net.load_state_dict(s["net"])
        self.opt.load_state_dict(s["opt"])
        self.average.net.load_state_dict(s["average"])
        self.average.count, self.step, self.seconds, self.start = s["count"], s["step"], s["seconds"], s["start"]
        self.best, self.best_loss, self.waiting = s["best"], s["best_loss"], s["waiting"]

    def save(self):
        """Write the checkpoint; the rename keeps the old one whole if we are killed."""
        part = self.path.with_suffix(".part")
        torch.save({"model": self.args.model, "net": self.net.state_dict(), "opt": self.opt.state_dict(),
                    "average": self.average.net.state_dict(), "count": self.average.count, "step": self.step,
                    "seconds": self.seconds, "seed": SEED, "start": self.start, "best": self.best,
                    "best_loss": self.best_loss, "waiting": self.waiting}, part)
        part.rename(self.path)
        if self.args.keep and self.step % self.args.keep == 0:
            shutil.copyfile(self.path, self.path.with_name(f"{self.args.model}-{self.step}.ckpt"))

    def meet(self):
        """Workers go on from the mean of their networks and agree on the time (local SGD: each keeps its optimiser)."""
        count = dist.get_world_size()
        for net in (self.net, self.average.net):
            values = [v for v in net.state_dict().values() if v.dtype.is_floating_point]
            flat = torch.cat([v.flatten() for v in values])
            dist.all_reduce(flat)
            for v, mean in zip(values, flat.div_(count).split([v.numel() for v in values])):
                v.copy_(mean.view(v.shape))
        seconds = torch.tensor([self.seconds], dtype=torch.float64)
        dist.all_reduce(seconds, dist.ReduceOp.MAX)
        self.seconds = float(seconds)

    def done(self):
        """Share of the budget that is used, 0..1."""
        by_time = self.seconds / (self.args.minutes * 60) if self.args.minutes else 0.0
        return max(self.step / self.args.steps, by_time)

    def train_step(self, samplers):
        """One optimiser step; returns the loss.  samplers: early and late part's."""
        late = self.done() >= self.cfg["recipe"].get("late", {}).get("from", 1.0)
        sampler = samplers[1 if late else 0]
        for g in self.opt.param_groups:
            g["lr"] = learning_rate(self.args.lr or self.cfg["recipe"]["lr"], self.done())
        x, target = sampler.batch(self.step)
        x = x.contiguous(memory_format=torch.channels_last)
        # bfloat16 convolutions take about half the time on recent CPUs
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
            out = self.net(x)
        loss = loss_of(out.float(), target, self.cfg["recipe"])
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 2.0)
        self.opt.step()
        self.average.update(self.net)
        self.step += 1
        return float(loss.detach())

    def check(self, tuning):
        """Measure the averaged network; True when it has not become better for `--patience` checks."""
        loss = tuning.loss(self.average.net, self.args.bf16)
        self.waiting += 1
        if loss < self.best_loss:
            self.best, self.best_loss, self.waiting = copy.deepcopy(self.average.net.state_dict()), loss, 0
        print(f"step {self.step} tuning loss {loss:.4f} best {self.best_loss:.4f}", flush=True)
        return self.waiting >= self.args.patience


def warm_start(net, path):
    """Take over the weights of a checkpoint that fit; returns what it was."""
    old, own = torch.load(path, map_location="cpu"), net.state_dict()
    fit = {k: v for k, v in old["average"].items() if k in own and v.shape == own[k].shape}
    net.load_state_dict({**own, **fit})
    print(f"{len(fit)} of {len(own)} tensors from {path}", flush=True)
    return f"{old['model']}, {old['step']} steps"


def parse():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True, choices=sorted(MODELS))
    ap.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    ap.add_argument("--out", type=pathlib.Path, help="model folder to export to at the end")
    ap.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/segworker-training"),
                    help="checkpoints and decoded images (outside the repository)")
    ap.add_argument("--steps", type=int, default=20000)
    ap.add_argument("--minutes", type=float, help="end after this wall time if it comes first")
    ap.add_argument("--threads", type=int, default=1, help="per worker")
    ap.add_argument("--workers", type=int, default=1, help="processes; each sees its own crops")
    ap.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    ap.add_argument("--init", type=pathlib.Path, help="checkpoint to start from instead of random weights")
    ap.add_argument("--lr", type=float, help="highest learning rate, in place of the recipe's")
    ap.add_argument("--keep", type=int, default=0,
                    help="keep a copy of the checkpoint every so many steps (a multiple of 250)")
    ap.add_argument("--check", type=int, default=500, help="steps between looks at the tuning images")
    ap.add_argument("--patience", type=int, default=12, help="checks without gain before training ends")
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    return ap.parse_args()


def start_workers(args):
    """Worker 0 starts the others, which run this same command; then all find each other."""
    if args.workers == 1:
        return []
    place = args.work / f"{args.model}.meet"
    others = []
    if args.worker == 0:
        place.unlink(missing_ok=True)
        command = [sys.executable, *sys.argv, "--worker"]
        others = [subprocess.Popen([*command, str(k)]) for k in range(1, args.workers)]
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=args.worker, world_size=args.workers,
                            timeout=datetime.timedelta(hours=1))
    return others


def loop(run, samplers, tuning):
    """Train until the budget is used or nothing gets better."""
    args, first = run.args, run.args.worker == 0
    last, mean, spent = time.monotonic(), None, 0.0
    stop = torch.zeros(1)
    while run.done() < 1 and not stop:
        loss = run.train_step(samplers)
        mean = loss if mean is None else 0.98 * mean + 0.02 * loss
        now = time.monotonic()
        spent, last = spent + min(now - last, PAUSE), now
        if run.step % MEET:
            continue
        run.seconds, spent = run.seconds + spent, 0.0
        if args.workers > 1:
            run.meet()
        if first and run.step % 100 == 0:
            print(f"step {run.step} loss {mean:.4f} seconds {run.seconds:.0f} done {run.done():.3f}", flush=True)
        if run.step % args.check == 0:
            if first:
                stop[0] = run.check(tuning)
            if args.workers > 1:
                dist.broadcast(stop, 0)
        if first and run.step % 250 == 0:
            run.save()


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    cfg = MODELS[args.model]
    recipe = cfg["recipe"]
    items = load_items(args.data, cfg["data"], cfg["input"], args.work)
    seed = SEED + 1000 * args.worker
    samplers = [Sampler(items, r, seed) for r in (recipe, {**recipe, **recipe.get("late", {})})]
    tuning = Tuning(load_items(args.data, cfg["data"], cfg["input"], args.work, "tune"), recipe)
    others = start_workers(args)
    run = Run(args)
    print(json.dumps({"model": args.model, "images": len(items), "parameters": parameter_count(run.net),
                      "step": run.step, "worker": args.worker}), flush=True)
    run.net.train()
    loop(run, samplers, tuning)
    if args.worker > 0:
        return
    run.check(tuning)
    run.save()
    for other in others:
        other.wait()
    if args.out:
        export_checkpoint(run.path, args.out, args.data)


if __name__ == "__main__":
    main()
