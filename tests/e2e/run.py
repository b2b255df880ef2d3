#!/usr/bin/python3
"""Starts a whole Spheroseg and runs the end-to-end tests in Chromium against it.

Uses real images when a data set lies beside the clone, generated ones otherwise. Screenshots go to
tests/e2e/screenshots. Prints TAP; the exit status is that of the tests.
"""
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

import images  # noqa: E402
from harness import BUILD, SHARED, Stack  # noqa: E402


def choose_images(folder):
    real = SHARED / "data"
    if real.is_dir():
        wanted = ["bbbc039/train/images/*.tif", "dsb2018/train/images/*.png", "spheroid_single/train/images/*.tif"]
        return [str(sorted(real.glob(pattern))[0]) for pattern in wanted]
    print("# no data set beside this clone: generated images")
    paths = []
    for n in range(3):
        path = folder / f"nuclei-{n}.tif"
        path.write_bytes(images.tiff16(images.nuclei(width=512, height=384, count=30, seed=n)[0]))
        paths.append(str(path))
    return paths


def main():
    if not (BUILD / "ui" / "index.html").exists():
        sys.exit("the UI is not built: make ui")
    if not (HERE / "node_modules" / "playwright-core").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=HERE, check=True)
    stack = Stack(workers=1, ui=True, env={"SEGWORKER_THREADS": "0"}).start()
    try:
        env = dict(os.environ, SPHEROSEG_URL=stack.url, SPHEROSEG_IMAGES=json.dumps(choose_images(stack.dir)))
        tests = sorted(str(p.name) for p in HERE.glob("*.test.mjs"))
        return subprocess.run(["node", "--test", "--test-concurrency=1", "--test-reporter=tap", *tests], cwd=HERE, env=env).returncode
    finally:
        stack.stop()


if __name__ == "__main__":
    sys.exit(main())
