"""Write a model folder's README.md (model card) from its model.json.

    card.py --model segworker/models/nuclei

The figures in a card thus always are the measured ones of that very file.
"""
import argparse
import json
import pathlib

from recipes import MODELS

SETS = {
    "dsb2018_fluorescence": "nuclei in fluorescence, many microscopes (2018 Data Science Bowl)",
    "dsb2018_histology": "nuclei in purple-stained tissue (2018 Data Science Bowl)",
    "dsb2018_brightfield": "nuclei in grey bright-field smears (2018 Data Science Bowl)",
    "bbbc039": "U2OS nuclei, Hoechst, 16 bit (BBBC039)",
    "usiigaci": "spread cells, phase contrast, 16 bit (Usiigaci)",
    "spheroid_single": "one spheroid in a droplet, bright field, 16 bit",
    "spheroid_many": "25 to 250 spheroids on a slide, bright field (silver masks)",
    "spheroid_fluo": "invading tumour spheroids, fluorescence",
}

NOTES = {
    "nuclei": """## Good for

Nuclei of about 8 to 100 px across, brighter or darker than their surroundings: DAPI, Hoechst and
similar stains, haematoxylin-stained sections, bright-field smears. Images are used at their own
size and as grey values. If nuclei are much larger or smaller than that, resize the image first.

## Weak at

- Tissue sections: crowded, pale or overlapping nuclei are often merged or missed; colour is not used.
- Specks of 10 to 25 px: those alone are found smaller than they are or not at all, those beside a nucleus are
  joined to it. BBBC039 counts them, 3 % of its objects, and half of what is missed there are such specks.
- Lobed nuclei in clumps: which lobes belong together is anybody's guess, also in the reference masks.
- Faint objects (`minConfidence`) are left out. A job with a lower threshold gets more of them.
- Nuclei that lie on top of each other without a visible edge between them.
- Very dim nuclei beside very bright ones, and nuclei blurred out of focus.
- Bright-field smears: only ten images were available, none held out, so there is no score.
- Whole cells: see `phase_contrast`.
""",
    "phase_contrast": """## Good for

Single spread or rounded cells in phase contrast, some 20 to 200 px across in an image of about 1000 px.
Images longer than 512 px are worked on at 512 px.

## Weak at

- Nine images of one cell line on one microscope were all there was: six to train on, one for tuning and
  two held out. Other cells, magnifications or contrasts are unknown territory: check by eye.
- Dense places, where borders cannot be seen, and thin processes, which are cut short.
- Halos, dirt and the edge of the well can be taken for cells.
""",
    "spheroid": """## Good for

Spheroids and organoids in bright field, one or many per image, darker than their surroundings, and
bright masses in fluorescence. Images longer than 1024 px are worked on at 1024 px.

## Weak at

- The masks of `spheroid_many` were made by a classical program ("silver"): its score is agreement
  with that program, not truth, and its wrong splits in clumps were learnt too.
- Fluorescent spheroids come from one microscope and 14 images. Use the outline of the bright mass;
  single cells that have left it are small at the working size, and those below `minArea` are dropped,
  which is why AP is low there.
- The only image without a spheroid is among the held-out ones. Its dark rim still gives a spot of
  90 px, which `minArea` removes: that value was chosen knowing this image. 75 px would be better for
  fluorescence.
- One spheroid that fills most of the image, out-of-focus spheroids and strongly uneven light were
  rare in training. Check such images by eye.
- Droplet rims, fibres and bubbles can be taken for spheroids.
""",
}


def score_table(scores):
    """Markdown table of the measured scores, ours and the baseline's."""
    lines = ["| images | n | objects | AP(0.5) | AP(0.75) | IoU | baseline AP(0.5) | baseline IoU |",
             "|---|---|---|---|---|---|---|---|"]
    for name, s in scores.items():
        b = s["baseline"]
        lines.append(f"| `{name}`: {SETS[name]} | {s['images']} | {s['objects']} | {s['AP50']:.3f} | {s['AP75']:.3f} "
                     f"| {s['IoU']:.3f} | {b['AP50']:.3f} | {b['IoU']:.3f} |")
    return "\n".join(lines)


TUNING = {
    "nuclei": """The post-processing values were chosen on the tuning images, which are other samples again. The starting
weights had seen those, the held-out ones never. For 2.2.0 the held-out images were scored three times, each time
with the post-processing values above: the new training alone (BBBC039 0.896, fluorescence 0.874), the weights of
2.1.0 (0.896, 0.869), and their mean, which is this model. The tuning images preferred the new training alone, by
little; that the mean was taken instead was decided knowing these scores, which are therefore a little kind to it.""",
    "phase_contrast": """The post-processing values and the end of training were chosen on the one tuning image, which the starting
weights had seen; the held-out ones never.""",
    "spheroid": """The threshold and the smoothing were chosen on images that are not held out; only `minArea` was chosen
knowing a held-out image, the one without a spheroid.""",
}

HOW = {
    "foreground_distance": """A small U-Net gives for each pixel the probability of being in an object and the
relative distance to the object's border; a watershed turns both into objects.""",
    "foreground_votes": """A small U-Net gives for each pixel the probability of being in an object and the way to that
object's centre. The pixels vote for their centres; pixels whose votes heap up in one place are one
object, also where objects touch.""",
}


def card(spec):
    """model.json contents -> Markdown."""
    t, post, i = spec["training"], spec["postprocess"], spec["input"]
    post_lines = "\n".join(f"| `{k}` | {v} |" for k, v in post.items())
    images = t["images"]
    enlarge = MODELS[spec["name"]].get("enlarge", 1)
    larger = f" The model enlarges its input {enlarge} times and its maps back." if enlarge != 1 else ""
    mean = ""
    if t.get("meanOf"):
        mean = f"The weights are the mean of {t['meanOf']} checkpoints (`mean.py`; which ones, says how to retrain).\n\n"
    start = f"the weights of an earlier model ({t['start']})" if t.get("start") else "random weights"
    return f"""# {spec['title']} (`{spec['name']}` {spec['version']})

{spec['description']}

{NOTES[spec['name']]}
## Measured on held-out images

{score_table(spec['scores'])}

AP(t) = TP / (TP + FP + FN), an object being found when it is matched with an intersection over
union of at least t; all images of a set pooled. IoU is the mean over images of the foreground's.
The baseline is Otsu's threshold with a distance watershed. Held-out images are whole samples
(`segworker/training/splits/`); they were not trained on.

{TUNING[spec['name']]}

## How it works

{HOW[spec['output']['kind']]}{larger} Input: one grey plane,
`{json.dumps(i['scale'])}`, percentiles {i['normalisation']['low']} to {i['normalisation']['high']}
mapped to 0..1, sides padded to multiples of {i['divisor']}.

| post-processing | value |
|---|---|
{post_lines}

## Origin

Trained from {start} on {', '.join(t['data'])} ({images['train']} images trained on,
{images.get('tune', 0)} for tuning, {images.get('held', images.get('val'))} held out), {t['steps']} steps, seed {t['seed']}, PyTorch {t['torch']}, {t['date']}:

```
{t['command']}
```

{mean}The images are CC0 or MIT licensed; the weights are {spec['license']} licensed. How to retrain:
`segworker/training/README.md`.
"""


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True, type=pathlib.Path)
    folder = ap.parse_args().model
    spec = json.loads((folder / "model.json").read_text())
    (folder / "README.md").write_text(card(spec))


if __name__ == "__main__":
    main()
