"""Alert rules and routing, judged by Prometheus's and Alertmanager's own tools: every alert fires on its cause, stays
silent without it and is over when the cause is; its page exists; its series are exported by somebody."""
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "compose/prometheus/rules/spheroseg.yml"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
DAY = 86400

# alert: its series as promtool writes them: well for 20 values, ill for 30, well again for 40, a minute apart. They are looked
# at just before the illness (silent), at its end (fires) and at the end of all (over).
WELL, ILL, AGAIN = 20, 30, 40
LONG = {"BackupTooOld": (4, 450)}  # alert: (minutes between two values, values of illness) where half an hour is too short


def steps(well, ill, again=None):
    again = well if again is None else again
    return f"{well}x{WELL - 1} {ill}x{ILL - 1} {again}x{AGAIN - 1}"


def counter(well, ill):
    """A counter that grows by `well` a minute, then by `ill`, then by `well`."""
    start, middle = well * WELL, well * WELL + ill * ILL
    return f"0+{well}x{WELL - 1} {start}+{ill}x{ILL - 1} {middle}+{well}x{AGAIN - 1}"


def clock(step=1, ill=ILL):
    """A time stamp that follows the clock, stands still, and follows it again."""
    every = 60 * step
    return f"0+{every}x{WELL - 1} {every * WELL}x{ill - 1} {every * (WELL + ill)}+{every}x{AGAIN - 1}"


CAUSES = {
    "GatewayDown": {'up{job="gateway",instance="a:1"}': steps(1, 0)},
    "TargetDown": {'up{job="redis",instance="redis-exporter:9121"}': steps(1, 0)},
    "HeartbeatFailed": {'spheroseg_heartbeat_success_timestamp_seconds{job="heartbeat",instance="h:1"}': clock(),
                        'process_start_time_seconds{job="heartbeat",instance="h:1"}': f"0x{WELL + ILL + AGAIN}"},
    "HighErrorRate": {'spheroseg_http_requests_total{status="200"}': counter(90, 90),
                      'spheroseg_http_requests_total{status="503"}': counter(0, 10)},
    "SlowRequests": {'spheroseg_http_request_seconds_bucket{route="/api/projects",le="0.1"}': counter(100, 0),
                     'spheroseg_http_request_seconds_bucket{route="/api/projects",le="2.5"}': counter(100, 100),
                     'spheroseg_http_request_seconds_bucket{route="/api/projects",le="+Inf"}': counter(100, 100)},
    "CertificateExpiresSoon": {"spheroseg_tls_certificate_left_seconds": steps(60 * DAY, 10 * DAY, 90 * DAY)},
    "QueueDeep": {'spheroseg_queue_jobs{state="queued",instance="a:1"}': steps(3, 150)},
    "OldestJobWaits": {"spheroseg_queue_oldest_waiting_seconds": steps(2, 1200)},
    "NoWorker": {"spheroseg_queue_workers": steps(2, 0)},
    "BreakerOpen": {'spheroseg_breaker_state{model="nuclei"}': steps(0, 2)},
    "JobsFail": {'spheroseg_jobs_total{model="nuclei",outcome="completed"}': counter(10, 8),
                 'spheroseg_jobs_total{model="nuclei",outcome="failed"}': counter(0, 2)},
    "DatabaseDown": {'spheroseg_db_up{job="gateway"}': steps(1, 0)},
    "RedisDown": {'spheroseg_redis_up{job="gateway"}': steps(1, 0)},
    "FewDatabaseConnections": {'spheroseg_db_pool_max_connections{job="gateway",instance="a:1"}': steps(20, 20),
                               'spheroseg_db_pool_connections{job="gateway",instance="a:1",state="in_use"}': steps(4, 19)},
    "DiskAlmostFull": {'node_filesystem_avail_bytes{mountpoint="/",fstype="ext4"}': steps(50, 5),
                       'node_filesystem_size_bytes{mountpoint="/",fstype="ext4"}': steps(100, 100)},
    "BackupTooOld": {"spheroseg_backup_success_timestamp_seconds": clock(*LONG["BackupTooOld"])},
}



def test_every_alert_has_a_cause_here():
    assert set(CAUSES) == set(ALERTS)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_fires_on_its_cause_and_is_over_with_it(alert, tmp_path):
    step, ill = LONG.get(alert, (1, ILL))
    firing = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'

    def expect(minute, count):
        return {"expr": firing, "eval_time": f"{minute * step}m", "exp_samples": [{"labels": "{}", "value": 1}] if count else []}

    test = {"rule_files": [str(RULES)], "evaluation_interval": "15s" if step == 1 else "4m", "tests": [{
        "interval": f"{step}m", "input_series": [{"series": s, "values": v} for s, v in CAUSES[alert].items()],
        "promql_expr_test": [expect(WELL - 5, 0), expect(WELL + ill - 2, 1), expect(WELL + ill + AGAIN - 2, 0)]}]}
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize("minute,fires", [(64, False), (68, True)])
def test_a_heartbeat_that_never_succeeds_is_told_and_one_that_starts_is_not(minute, fires, tmp_path):
    labels = '{job="heartbeat",instance="h:1"}'
    test = {"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [{
        "interval": "1m", "input_series": [{"series": f"spheroseg_heartbeat_success_timestamp_seconds{labels}", "values": "_x60 0x20"},
                                           {"series": f"process_start_time_seconds{labels}", "values": "_x60 3600x20"}],
        "promql_expr_test": [{"expr": 'count(ALERTS{alertname="HeartbeatFailed",alertstate="firing"})', "eval_time": f"{minute}m",
                              "exp_samples": [{"labels": "{}", "value": 1}] if fires else []}]}]}
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_explained():
    book = (ROOT / "scripts/README.md").read_text()
    for name, rule in ALERTS.items():
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]
        assert rule["annotations"]["runbook_url"] == f"scripts/README.md#{name.lower()}"
        assert re.search(rf"^#+ {name}$", book, re.M), f"scripts/README.md has no page on {name}"


def series_of(expression):
    return set(re.findall(r"\b((?:spheroseg|node|pg|redis)_[a-z_]+)\b", expression))


def test_own_series_are_exported():
    """Every series of ours that a rule or panel names stands in the daemons' or the scripts' source."""
    source = "".join(p.read_text(errors="replace") for top in ("common", "gateway", "segworker", "scripts", "compose/image")
                     for p in (ROOT / top).rglob("*") if p.suffix in (".c", ".h", ".sh", ".py") and "node_modules" not in p.parts)
    exported = set(re.findall(r"\bspheroseg_[a-z_]+", source))
    wanted = {s for rule in ALERTS.values() for s in series_of(rule["expr"])}
    for path in (ROOT / "compose/grafana/dashboards").glob("*.json"):
        wanted |= series_of(path.read_text())
    ours = {re.sub(r"_(bucket|sum|count)$", "", s) for s in wanted if s.startswith("spheroseg_")}
    assert ours and not ours - exported, sorted(ours - exported)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_prometheus_takes_its_configuration(tmp_path):
    text = (ROOT / "compose/prometheus/prometheus.yml").read_text().replace("/etc/prometheus", str(ROOT / "compose/prometheus"))
    path = tmp_path / "prometheus.yml"
    path.write_text(text)
    done = subprocess.run(["promtool", "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module", name="routing")
def fixture_routing(tmp_path_factory):
    """Alertmanager's configuration as start.sh makes it."""
    folder = tmp_path_factory.mktemp("alertmanager")
    text = (ROOT / "compose/alertmanager/start.sh").read_text()
    text = text.replace("/tmp/", f"{folder}/").replace("/etc/spheroseg", str(ROOT / "compose/alertmanager")).replace("exec ", ": ")
    subprocess.run(["sh", "-c", text], check=True, env={"PATH": "/usr/bin:/bin", "SMTP_HOST": "mail:25"})
    return folder / "alertmanager.yml"


@pytest.mark.skipif(not shutil.which("amtool"), reason="amtool is not installed")
@pytest.mark.parametrize("labels,receiver", [
    (["alertname=DatabaseDown", "severity=critical"], "urgent"), (["alertname=QueueDeep", "severity=warning"], "team")])
def test_routing(routing, labels, receiver):
    subprocess.run(["amtool", "check-config", routing], check=True, capture_output=True)
    done = subprocess.run(["amtool", "config", "routes", "test", f"--config.file={routing}", *labels],
                          capture_output=True, text=True, check=True)
    assert done.stdout.split() == [receiver]


def test_all_severities_are_routed():
    assert {rule["labels"]["severity"] for rule in ALERTS.values()} == {"critical", "warning"}
