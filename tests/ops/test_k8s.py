"""k8s/: each overlay is put together by kustomize and checked, without a cluster: against the schemas of Kubernetes 1.33's
API (KEDA's and the Prometheus operator's too), and against what this project promises about them."""
import base64
import json
import os
import pathlib
import shutil
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
SCHEMAS = pathlib.Path(os.environ.get("SPHEROSEG_BUILD", ROOT / "build")).resolve() / "k8s-schemas"
OVERLAYS = ("dev", "prod", "gpu", "prod-s3")
needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
pytestmark = needs_kubectl


@pytest.fixture(scope="module", name="tree")
def fixture_tree(tmp_path_factory):
    """A copy of k8s/ with secrets made in it."""
    tree = tmp_path_factory.mktemp("k8s") / "k8s"
    shutil.copytree(ROOT / "k8s", tree, ignore=shutil.ignore_patterns("secrets"))
    for overlay in ("dev", "prod"):
        subprocess.run([ROOT / "k8s/secrets.sh", tree / "overlays" / overlay], check=True, capture_output=True)
    bucket = tree / "overlays/prod-s3"  # as somebody would write it who has one
    bucket.mkdir()
    (bucket / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: spheroseg\n"
        "resources: [../prod]\ncomponents: [../../components/s3]\n")
    return tree


@pytest.fixture(scope="module", name="objects")
def fixture_objects(tree):
    out = {}
    for overlay in OVERLAYS:
        done = subprocess.run(["kubectl", "kustomize", tree / "overlays" / overlay], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not done.stderr.strip(), done.stderr
        out[overlay] = list(yaml.safe_load_all(done.stdout))
    return out


@pytest.fixture(scope="module", name="schemas")
def fixture_schemas():
    """The packages with the schemas, in the build folder; they are too big to be kept here."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    SCHEMAS.mkdir(parents=True, exist_ok=True)
    lock = (HERE / "schemas/package-lock.json").read_text()
    stamp = SCHEMAS / "stamp"
    if not stamp.exists() or stamp.read_text() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / "schemas" / name, SCHEMAS / name)
        done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=SCHEMAS, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"the schemas cannot be had: {done.stderr[-200:]}")
        stamp.write_text(lock)
    return SCHEMAS


def check(schemas, objects, tmp_path):
    path = tmp_path / "objects.json"
    path.write_text(json.dumps(objects))
    return subprocess.run(["node", HERE / "schemas/check.mjs", schemas, path], capture_output=True, text=True, check=False)


def of(objects, kind, name):
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)


def pods(objects):
    """Name and specification of every pod; those of jobs, which end by themselves, are not asked how they are."""
    return ([(o["metadata"]["name"], o["spec"]["template"]["spec"]) for o in objects if o["kind"] in ("Deployment", "StatefulSet")] +
            [(o["metadata"]["name"], o["spec"]["jobTemplate"]["spec"]["template"]["spec"]) for o in objects if o["kind"] == "CronJob"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_takes_it(objects, schemas, overlay, tmp_path):
    done = check(schemas, objects[overlay], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mistakes_are_found(objects, schemas, tmp_path):
    """The check itself: a misspelt field, a wrong type and a kind that does not exist."""
    broken = json.loads(json.dumps(objects["prod"]))
    of(broken, "Deployment", "gateway")["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    of(broken, "Deployment", "segworker")["spec"]["replicas"] = "many"
    of(broken, "Ingress", "spheroseg")["apiVersion"] = "extensions/v1beta9"
    done = check(schemas, broken, tmp_path)
    assert done.returncode == 1
    for word in ("readynessProbe", "replicas", "extensions/v1beta9"):
        assert word in done.stdout


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_restricted(objects, overlay):
    assert of(objects[overlay], "Namespace", "spheroseg")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in pods(objects[overlay]):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"} and pod["automountServiceAccountToken"] is False
        for container in pod["containers"] + pod.get("initContainers", []):
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"] and own["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
            assert pod.get("restartPolicy") == "Never" or container["readinessProbe"] and container["livenessProbe"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_names_fit_together(objects, overlay):
    """What is referred to is there: config maps, secrets and their keys, claims, ports, selectors."""
    all_of = objects[overlay]
    have = {(o["kind"], o["metadata"]["name"]) for o in all_of}
    assert {o["metadata"].get("namespace", "spheroseg") for o in all_of} == {"spheroseg"}
    for name, pod in pods(all_of):
        claims = {t["metadata"]["name"] for o in all_of if o["metadata"]["name"] == name for t in o["spec"].get("volumeClaimTemplates", [])}
        volumes = {v["name"] for v in pod["volumes"]} | claims
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in have
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in have
            if "secret" in volume:
                secret = of(all_of, "Secret", volume["secret"]["secretName"])
                assert {i["key"] for i in volume["secret"].get("items", [])} <= set(secret["data"])
        for container in pod["containers"]:
            assert {m["name"] for m in container["volumeMounts"]} == volumes
            for source in container.get("envFrom", []):
                assert ("ConfigMap", source["configMapRef"]["name"]) in have
    for service in (o for o in all_of if o["kind"] == "Service"):
        matching = [o for o in all_of if o["kind"] in ("Deployment", "StatefulSet")
                    and service["spec"]["selector"].items() <= o["spec"]["template"]["metadata"]["labels"].items()]
        assert len(matching) == 1
    backend = of(all_of, "Ingress", "spheroseg")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["port"]["name"] in {p["name"] for p in of(all_of, "Service", backend["name"])["spec"]["ports"]}


@pytest.mark.parametrize("overlay", ("dev", "prod"))
def test_secrets_open_the_servers(objects, overlay):
    """The passwords in the daemons' URLs are those that the servers are given."""
    data = {k: base64.b64decode(v).decode() for o in objects[overlay] if o["kind"] == "Secret" for k, v in o["data"].items()}
    assert f":{data['postgres_password']}@postgres:5432/" in data["database_url"]
    password = data["redis_url"].split("spheroseg:")[1].split("@")[0]
    assert f">{password} " in data["redis_users.acl"] and "user default off" in data["redis_users.acl"]
    assert len(data["jwt_secret"]) >= 32


def test_no_secret_is_committed():
    committed = subprocess.run(["git", "ls-files", "k8s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [p for p in committed if "/secrets/" in p]
    assert subprocess.run(["git", "check-ignore", "-q", "k8s/overlays/prod/secrets/jwt_secret"], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("overlay", ("prod", "gpu"))
def test_scaling_kills_no_work(objects, overlay):
    deployment, scaler = of(objects[overlay], "Deployment", "segworker"), of(objects[overlay], "ScaledObject", "segworker")
    pod = deployment["spec"]["template"]["spec"]
    stop = next(int(e["value"]) for e in pod["containers"][0]["env"] if e["name"] == "STOP_TIMEOUT")
    assert pod["terminationGracePeriodSeconds"] >= stop + 15
    query = scaler["spec"]["triggers"][0]["metadata"]["query"]
    assert 'state="queued"' in query and 'state="active"' in query
    assert "replicas" not in deployment["spec"], "KEDA and the manifest would fight about the number"
    gateway = of(objects[overlay], "Deployment", "gateway")["spec"]["template"]["spec"]
    assert gateway["terminationGracePeriodSeconds"] >= 20 + 5


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_backup_every_night(objects, overlay):
    """It reads the images and changes none, one runs at a time, and it reaches the database."""
    job = of(objects[overlay], "CronJob", "backup")["spec"]
    assert job["concurrencyPolicy"] == "Forbid" and job["schedule"] == "0 2 * * *"
    pod = job["jobTemplate"]["spec"]["template"]
    mounts = {m["name"]: m for m in pod["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["storage"]["readOnly"] and not mounts["backups"].get("readOnly")
    policies = {o["metadata"]["name"]: o["spec"] for o in objects[overlay] if o["kind"] == "NetworkPolicy"}
    name = pod["metadata"]["labels"]["app.kubernetes.io/name"]
    for policy, end in (("to-servers", policies["to-servers"]["podSelector"]), ("servers", policies["servers"]["ingress"][0]["from"][0]["podSelector"])):
        assert name in end["matchExpressions"][0]["values"], policy


def test_a_bucket_reaches_everybody_who_needs_it(objects):
    all_of = objects["prod-s3"]
    for name, pod in pods(all_of):
        container = pod["containers"][0]
        given = {e["name"]: e.get("value") for e in container.get("env", [])}
        for source in container.get("envFrom", []):
            given.update(of(all_of, "ConfigMap", source["configMapRef"]["name"])["data"])
        if name in ("gateway", "segworker", "backup"):
            assert given["STORAGE_URL"].startswith("s3://") and given["S3_SECRET_KEY_FILE"] == "/run/secrets/s3/s3_secret_key", name
        else:
            assert not [n for n in given if n.startswith("S3_")], name
        assert ("BACKUP_URL" in given) == (name == "backup")
    policies = {o["metadata"]["name"]: o["spec"] for o in all_of if o["kind"] == "NetworkPolicy"}
    assert policies["to-bucket"]["egress"][0]["ports"] == [{"protocol": "TCP", "port": 443}]
    assert "to-bucket" not in {o["metadata"]["name"] for o in objects["prod"]}


def test_gpu_workers_have_one_gpu(objects):
    container = of(objects["gpu"], "Deployment", "segworker")["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1" and container["image"].endswith("-cuda")
    assert {"name": "SEGWORKER_DEVICE", "value": "cuda"} in container["env"]


def test_network_is_closed_but_for_what_is_named(objects):
    policies = {o["metadata"]["name"]: o["spec"] for o in objects["prod"] if o["kind"] == "NetworkPolicy"}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    open_to_all = [n for n, p in policies.items() if any("from" not in r for r in p.get("ingress", [])) or any("to" not in r for r in p.get("egress", []))]
    assert not open_to_all


def test_settings_are_known():
    """Every setting that the manifests give is one that a daemon reads."""
    table = (ROOT / "common/config_table.h").read_text()
    base = yaml.safe_load((ROOT / "k8s/base/kustomization.yaml").read_text())
    names = [line.split("=")[0] for g in base["configMapGenerator"] if g["name"] == "settings" for line in g["literals"]]
    assert not [n for n in names if f'"{n.removesuffix("_FILE")}"' not in table]


def test_postgresql_is_configured_as_in_compose():
    assert (ROOT / "k8s/base/postgresql.conf").read_text() == (ROOT / "compose/postgres/postgresql.conf").read_text()


def test_task_definitions_of_clouds():
    """They can be read, name settings that a daemon reads, and leave the daemons time to stop."""
    table = (ROOT / "common/config_table.h").read_text()
    known = lambda name: f'"{name.removesuffix("_FILE")}"' in table  # noqa: E731
    for path in (ROOT / "k8s/cloud").glob("ecs-*.json"):
        container = json.loads(path.read_text())["containerDefinitions"][0]
        names = {v["name"]: v.get("value") for v in container["environment"] + container["secrets"]}
        assert all(known(n) for n in names), path
        assert container["readonlyRootFilesystem"] and container["stopTimeout"] > int(names.get("STOP_TIMEOUT", 20)) + 15
    for path in (ROOT / "k8s/cloud").glob("cloudrun-*.yaml"):
        for container in yaml.safe_load(path.read_text())["spec"]["template"]["spec"]["containers"]:
            assert all(known(v["name"]) for v in container.get("env", [])), path
    for container in yaml.safe_load((ROOT / "k8s/cloud/aci.yaml").read_text())["properties"]["containers"]:
        assert all(known(v["name"]) for v in container["properties"]["environmentVariables"])
