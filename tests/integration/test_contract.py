"""proto/openapi.yaml is the truth: the routing table and the live answers are held against it."""
import re
import subprocess

import images
import jsonschema
import pytest
import yaml
from harness import BUILD, ROOT, wait_until

SPEC = yaml.safe_load((ROOT / "proto/openapi.yaml").read_text())


def resolve(node):
    """Copies a schema with its references replaced (the contract has no recursive ones)."""
    if isinstance(node, dict):
        if "$ref" in node:
            target = SPEC
            for part in node["$ref"].lstrip("#/").split("/"):
                target = target[part]
            return resolve(target)
        return {k: resolve(v) for k, v in node.items()}
    return [resolve(v) for v in node] if isinstance(node, list) else node


def check(answer, method, path):
    operation = SPEC["paths"][path][method.lower()]
    assert str(answer.status) in operation["responses"], f"{method} {path} answered {answer.status}, which is not documented"
    response = resolve(operation["responses"][str(answer.status)])
    content = response.get("content", {})
    kind = (answer.headers["Content-Type"] or "").split(";")[0]
    if "json" in kind:
        assert kind in content, f"{method} {path}: {kind} is not documented"
        jsonschema.validate(answer.json, content[kind]["schema"])
    return answer


def test_routing_table_and_contract_name_the_same_routes():
    out = subprocess.run([BUILD / "gateway", "routes"], capture_output=True, text=True, check=True, timeout=20).stdout
    ours = set()
    for line in out.split("\n"):
        if line.strip():
            method, path = line.split()[:2]
            ours.add((method, path))
    contract = {(m.upper(), p) for p, item in SPEC["paths"].items() for m in item if m in ("get", "post", "patch", "put", "delete")}
    assert ours == contract, f"only in the code: {sorted(ours - contract)}; only in the contract: {sorted(contract - ours)}"


def test_codes_are_snake_case(stack, alice):
    for answer in (alice.get("/api/nothing"), alice.get("/api/projects?limit=x"), alice.post("/api/projects", {})):
        assert re.fullmatch(r"[a-z][a-z0-9_]*", answer.code)


def test_live_answers_follow_the_contract(stack, alice):
    wait_until(lambda: alice.get("/api/health/services/ml").status == 200, 30, "a look at the worker")   # one a second
    check(alice.get("/api/health"), "GET", "/api/health")
    check(alice.get("/api/health/live"), "GET", "/api/health/live")
    check(alice.get("/api/health/ready"), "GET", "/api/health/ready")
    check(alice.get("/api/health/detailed"), "GET", "/api/health/detailed")
    for service in ("database", "redis", "queue", "ml", "storage"):
        answer = check(alice.get(f"/api/health/services/{service}"), "GET", "/api/health/services/{service}")
        assert answer.status == 200 and answer.json["status"] == "up", answer
    check(alice.get("/api/performance/metrics"), "GET", "/api/performance/metrics")
    check(alice.get("/api/auth/me"), "GET", "/api/auth/me")
    check(alice.post("/api/auth/login", {"email": alice.email, "password": alice.password}), "POST", "/api/auth/login")
    check(alice.post("/api/auth/login", {"email": alice.email, "password": "wrong password"}), "POST", "/api/auth/login")
    check(alice.get("/api/models"), "GET", "/api/models")
    project = check(alice.post("/api/projects", {"title": "contract", "defaultModel": "nuclei"}), "POST", "/api/projects").json
    check(alice.post("/api/projects", {}), "POST", "/api/projects")
    path = f"/api/projects/{project['id']}"
    check(alice.get(path), "GET", "/api/projects/{projectId}")
    check(alice.call("PATCH", path, {"title": "x"}, headers={"If-Match": '"stale"'}), "PATCH", "/api/projects/{projectId}")
    check(alice.get("/api/projects"), "GET", "/api/projects")
    image = check(alice.upload(project, images.tiff16(images.nuclei()[0])), "POST", "/api/projects/{projectId}/images").json
    check(alice.upload(project, b"nothing like an image"), "POST", "/api/projects/{projectId}/images")
    accepted = check(alice.post(f"/api/images/{image['id']}/segmentation", {}), "POST", "/api/images/{imageId}/segmentation").json
    check(alice.get(f"/api/segmentation/job/{accepted['jobId']}"), "GET", "/api/segmentation/job/{jobId}")
    alice.wait_job(accepted["jobId"])
    check(alice.get(f"/api/segmentation/job/{accepted['jobId']}"), "GET", "/api/segmentation/job/{jobId}")
    check(alice.delete(f"/api/segmentation/job/{accepted['jobId']}"), "DELETE", "/api/segmentation/job/{jobId}")
    check(alice.post(f"/api/segmentation/job/{accepted['jobId']}/retry"), "POST", "/api/segmentation/job/{jobId}/retry")
    check(alice.get("/api/segmentation/jobs"), "GET", "/api/segmentation/jobs")
    check(alice.get("/api/segmentation/queue/status"), "GET", "/api/segmentation/queue/status")
    check(alice.get(f"/api/images/{image['id']}"), "GET", "/api/images/{imageId}")
    check(alice.get(f"{path}/images"), "GET", "/api/projects/{projectId}/images")
    check(alice.get(f"/api/images/{image['id']}/segmentation"), "GET", "/api/images/{imageId}/segmentation")
    check(alice.get(f"/api/images/{image['id']}/polygons"), "GET", "/api/images/{imageId}/polygons")
    check(alice.get(f"/api/images/{image['id']}/tiles"), "GET", "/api/images/{imageId}/tiles")
    check(alice.post(f"{path}/segmentation", {"all": True}), "POST", "/api/projects/{projectId}/segmentation")
    check(alice.post(f"{path}/segmentation/cancel"), "POST", "/api/projects/{projectId}/segmentation/cancel")
    check(alice.post(f"{path}/segmentation/retry-failed"), "POST", "/api/projects/{projectId}/segmentation/retry-failed")
    check(alice.delete(f"/api/images/{image['id']}"), "DELETE", "/api/images/{imageId}")
    check(alice.delete(path), "DELETE", "/api/projects/{projectId}")
