"""A whole system in containers, for the tests of what operators do: own project name, own ports, removed at the end."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))

from api import Client  # noqa: E402
from harness import free_port, wait_until  # noqa: E402


def run(*argv, check=True, timeout=600, **kw):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=timeout, check=False, **kw)
    assert not check or done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done


def engine():
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except OSError:
        return False


def build_images(version):
    """The images from the last commit (what is not committed is not shipped)."""
    with tempfile.TemporaryDirectory() as context:
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", context], input=archive, check=True)
        commit = run("git", "describe", "--always", cwd=ROOT).stdout.strip()
        for target in ("gateway", "segworker"):
            run("docker", "build", "-q", "-f", "compose/Dockerfile", "--target", target, "--build-arg", f"VERSION={commit}",
                "-t", f"spheroseg/{target}:{version}", ".", cwd=context, timeout=2400, env=dict(os.environ, DOCKER_BUILDKIT="0"))
        run("docker", "build", "-q", "-f", "compose/Dockerfile.backup", "--build-arg", f"VERSION={commit}", "-t", f"spheroseg/backup:{version}", ".",
            cwd=context, timeout=1200, env=dict(os.environ, DOCKER_BUILDKIT="0"))


def bridge_address():
    """Where containers reach this computer."""
    bridge = json.loads(run("docker", "network", "inspect", "bridge").stdout)[0]["IPAM"]["Config"][0]
    return bridge.get("Gateway") or bridge["Subnet"].rsplit(".", 1)[0] + ".1"


class Containers:
    """docker-compose over the files of compose/."""

    def __init__(self, name, files=("docker-compose.yml",), **settings):
        self.project, self.dir = name, pathlib.Path(tempfile.mkdtemp(prefix="spheroseg-ops-"))
        self.https_port, self.http_port = free_port(), free_port()
        self.settings = {"COMPOSE_PROJECT_NAME": name, "COMPOSE_FILE": ":".join(str(f) if str(f).startswith("/") else f"compose/{f}" for f in files),
                         "HTTPS_PORT": self.https_port, "HTTP_PORT": self.http_port, "VERSION": "test", "JOB_LEASE": "5000",
                         "SEGWORKER_THREADS": "1", **settings}
        self.env_file = self.dir / "settings"
        self.env_file.write_text("".join(f"{k}={v}\n" for k, v in self.settings.items()))
        self.env = dict(os.environ, SPHEROSEG_ENV_FILE=str(self.env_file), **{k: str(v) for k, v in self.settings.items()})

    def add(self, services, **settings):
        """A compose file of the test's own on top, and more settings."""
        override = self.dir / "override.yml"
        override.write_text(yaml.safe_dump({"version": "3.8", "services": services}))
        self.settings.update(settings, COMPOSE_FILE=f"{self.settings['COMPOSE_FILE']}:{override}")
        self.env.update({k: str(v) for k, v in self.settings.items()})
        self.env_file.write_text("".join(f"{k}={v}\n" for k, v in self.settings.items()))

    def secrets_from_host(self, services=None, **settings):
        """As in production: secrets in a folder of the host."""
        secrets = self.dir / "secrets"
        self.add({"secrets": {"volumes": [f"{secrets}:/host-secrets:ro"]}, **(services or {})}, SECRETS_DIR=secrets, **settings)
        self.script("create-secrets.sh")
        return secrets

    def compose(self, *args, **kw):
        return run("docker-compose", *args, cwd=ROOT, env=self.env, **kw)

    def script(self, name, *args, check=True, **env):
        return run(ROOT / "scripts" / name, *args, check=check, env=dict(self.env, **env))

    def up(self, gateways=1, workers=1):
        self.compose("up", "-d", "--no-build", "--scale", f"gateway={gateways}", "--scale", f"segworker={workers}")
        for service in ("gateway", "segworker", "nginx"):
            wait_until(lambda service=service: all(self.health(i) == "healthy" for i in self.ids(service)), 240, f"{service} healthy")
        return self.trusting()

    def trusting(self):
        """Waits for nginx and keeps its certificate."""
        wait_until(lambda: all(self.health(i) == "healthy" for i in self.ids("nginx")), 240, "nginx healthy")
        # The tests' client trusts the certificate that it is given, as a person would who has seen it once.
        (self.dir / "tls").mkdir(exist_ok=True)
        pem = run("openssl", "s_client", "-connect", f"127.0.0.1:{self.https_port}", "-showcerts", input="").stdout
        chain = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.S)
        (self.dir / "tls/gateway.crt").write_text("\n".join(chain))
        return self

    def ids(self, service):
        return self.compose("ps", "-q", service).stdout.split()

    def health(self, container):
        form = "{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}"
        return run("docker", "inspect", "-f", form, container, check=False).stdout.strip()

    def sql(self, text):
        out = run("docker", "exec", self.ids("postgres")[0], "psql", "-U", "spheroseg", "-d", "spheroseg", "-h", "/var/run/postgresql", "-Atc", text)
        return [tuple(line.split("|")) for line in out.stdout.splitlines()]

    def client(self):
        person = Client(self)
        person.context.check_hostname = False  # the certificate says localhost, the tests say 127.0.0.1
        return person

    def down(self):
        self.compose("down", "-v", "-t", "5", check=False)


def settled(stack, seconds, tick=1.0):
    """Waits until no job is unfinished."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        left = int(stack.sql("SELECT count(*) FROM jobs WHERE state IN ('queued', 'active', 'delayed')")[0][0])
        if left == 0:
            return
        time.sleep(tick)
    raise AssertionError(f"{left} jobs are unfinished after {seconds} s")
