"""Every Dockerfile against the rules that linters for them know (their numbers are hadolint's), by a reader of our own: what
is there is small. Needs no engine."""
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = sorted([*ROOT.glob("compose/Dockerfile*"), *ROOT.glob("tests/ops/images/*/Dockerfile")])
KNOWN = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD", "LABEL", "VOLUME"}


def instructions(path_or_text):
    """(word, rest) of each instruction, continued lines joined, comments left out."""
    text = path_or_text if isinstance(path_or_text, str) else path_or_text.read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\s*\n", " ", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip() if " " in line else "") for line in joined.splitlines() if line.strip()]


def complaints(found):
    arguments, stages, users, out = {}, [], {}, []

    def say(rule, what):
        out.append(f"{rule}: {what}")
    for n, (word, rest) in enumerate(found):
        if word not in KNOWN:
            say("DL4000", f"{word} is no instruction that is used here (ADD, MAINTAINER, ONBUILD, SHELL are not)")
        if word == "ARG" and not stages:
            name, _, value = rest.partition("=")
            arguments[name] = value
        if word == "FROM":
            m = re.fullmatch(r"(\S+)(?:\s+AS\s+(\S+))?", rest)
            if not m:
                say("DL3006", f"FROM {rest}")
                continue
            image = re.sub(r"\$\{(\w+)\}", lambda v: arguments.get(v[1], ""), m[1])
            if image not in [s for s in stages if s]:
                if ":" not in image:
                    say("DL3006", f"{image} has no tag")
                if image.endswith(":latest"):
                    say("DL3007", f"{image} is another one each day")
            if m[2] and m[2] in stages:
                say("DL3024", f"two stages are called {m[2]}")
            stages.append(m[2] or "")
            users[len(stages)] = users.get(stages.index(image) + 1) if image in stages[:-1] else None
        if word == "WORKDIR" and not rest.startswith("/"):
            say("DL3000", f"WORKDIR {rest} is relative")
        if word == "USER":
            users[len(stages)] = rest
        if word == "EXPOSE" and any(not 0 < int(p) < 65536 for p in rest.split()):
            say("DL3011", rest)
        if word in ("CMD", "ENTRYPOINT") and not rest.startswith("["):
            say("DL3025", f"{word} {rest} goes through a shell")
        if word == "COPY":
            source = re.match(r"--from=(\S+)", rest)
            if source and source[1] not in stages[:-1]:
                say("DL3022", f"--from={source[1]} is no stage before this one")
        if word == "RUN":
            if re.search(r"\bsudo\b", rest):
                say("DL3004", "sudo")
            if re.search(r"\bapt\b(?!-)", re.sub(r"/[\w/.-]*", "", rest)):
                say("DL3027", "apt is for people")
            if "apt-get install" in rest:
                for need, rule in (("-y", "DL3014"), ("--no-install-recommends", "DL3015")):
                    if need not in rest:
                        say(rule, f"{need} is missing: {rest[:60]}")
                if "rm -rf /var/lib/apt/lists" not in rest and stages[-1] not in ("tools", "build-cuda"):  # those are thrown away
                    say("DL3009", f"the lists stay: {rest[:60]}")
                if "apt-get update" not in rest:
                    say("DL3009", f"install without update: {rest[:60]}")
            if re.search(r"(?<!\|)\|(?!\|)", re.sub(r"'[^']*'|\"[^\"]*\"", "", rest)):
                say("DL4006", f"a pipe hides the failure of its beginning: {rest[:60]}")
            if re.match(r"cd\s", rest) and "&&" not in rest:
                say("DL3003", rest)
            if n and found[n - 1][0] == "RUN" and "apt-get" in rest and "apt-get" in found[n - 1][1]:
                say("DL3059", "two RUN that install")
        if re.search(r"(?i)(password|secret|token)\s*=\s*\S", rest) and word in ("ENV", "ARG"):
            say("secrets", f"{word} {rest}")
    if [w for w, _ in found].count("HEALTHCHECK") > len(stages):
        say("DL3012", "two health checks in one stage")
    return out, users


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_dockerfile(path):
    out, _ = complaints(instructions(path))
    assert not out, "\n".join(out)


def test_what_is_shipped_runs_as_nobody():
    for path in ROOT.glob("compose/Dockerfile*"):
        found = instructions(path)
        out, users = complaints(found)
        ends = [n + 1 for n, name in enumerate([r.split()[-1] for w, r in found if w == "FROM"])
                if path.name != "Dockerfile" or name in ("gateway", "segworker", "segworker-cuda")]
        assert ends
        for stage in ends:
            user = users[stage]
            assert user and user.split(":")[0] not in ("0", "root"), (path, stage, user)
            assert ":" in user, "a group, too"


@pytest.mark.parametrize("text,rule", [
    ("FROM debian\n", "DL3006"), ("FROM debian:latest\n", "DL3007"), ("FROM a:1\nRUN sudo ls\n", "DL3004"), ("FROM a:1\nADD x /x\n", "DL4000"),
    ("FROM a:1\nRUN apt-get update && apt-get install -y --no-install-recommends x\n", "DL3009"),
    ("FROM a:1\nRUN apt-get update && apt-get install -y x && rm -rf /var/lib/apt/lists/*\n", "DL3015"),
    ("FROM a:1\nRUN a | b\n", "DL4006"), ("FROM a:1\nCMD run it\n", "DL3025"), ("FROM a:1\nWORKDIR x\n", "DL3000"),
    ("FROM a:1\nCOPY --from=nobody /a /b\n", "DL3022"), ("FROM a:1 AS x\nFROM b:1 AS x\n", "DL3024"), ("FROM a:1\nENV DB_PASSWORD=x\n", "secrets")])
def test_mistakes_are_found(text, rule):
    out, _ = complaints(instructions(text))
    assert any(line.startswith(rule) for line in out), out
