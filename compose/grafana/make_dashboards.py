#!/usr/bin/python3
"""Writes the dashboards (dashboards/*.json) from the table below, so that a panel is one line here.

usage: compose/grafana/make_dashboards.py [--check]
--check writes nothing and fails when a file differs from what would be written.
"""
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent / "dashboards"
S, B, P, N = "s", "bytes", "percentunit", "short"


def quantiles(metric, by=""):
    group = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return [(f"histogram_quantile({q}, sum by ({group}) (rate({metric}_bucket[5m])))", f"{legend}p{int(q * 100)}") for q in (.5, .99)]


# title: rows of panels (title, unit, [(expression, legend)])
DASHBOARDS = {
    "service": [
        ("Requests", "reqps", [("sum by (status) (rate(spheroseg_http_requests_total[5m]))", "{{status}}")]),
        ("Share of 5xx", P, [('sum(rate(spheroseg_http_requests_total{status=~"5.."}[5m])) / sum(rate(spheroseg_http_requests_total[5m]))', "5xx")]),
        ("Time of a request", S, quantiles("spheroseg_http_request_seconds")),
        ("Requests being answered", N, [("sum(spheroseg_http_requests_in_flight)", "requests"), ("sum(spheroseg_http_connections)", "connections"), ("sum(spheroseg_websockets)", "WebSockets")]),
        ("Uploads", "Bps", [("sum(rate(spheroseg_upload_bytes_total[5m]))", "bytes")]),
        ("Messages to browsers", "ops", [("sum(rate(spheroseg_websocket_messages_total[5m]))", "sent"), ("sum(rate(spheroseg_websocket_slow_total[5m]))", "closed as too slow")]),
        ("Heartbeat: time of each step", S, [("spheroseg_heartbeat_step_seconds", "{{step}}")]),
        ("Heartbeat: seconds since the last success", S, [("time() - spheroseg_heartbeat_success_timestamp_seconds", "age")]),
        ("Certificates: time left", S, [("min(spheroseg_tls_certificate_left_seconds)", "gateway"), ("spheroseg_heartbeat_certificate_left_seconds", "public")]),
        ("Memory of the gateways", B, [('process_resident_memory_bytes{job="gateway"}', "{{instance}}")]),
    ],
    "queue-and-workers": [
        ("Jobs", N, [("max by (state) (spheroseg_queue_jobs)", "{{state}}")]),
        ("Age of the oldest waiting job", S, [("max(spheroseg_queue_oldest_waiting_seconds)", "age")]),
        ("Runs that ended", "ops", [("sum by (model, outcome) (rate(spheroseg_jobs_total[5m]))", "{{model}} {{outcome}}")]),
        ("Workers", N, [("max(spheroseg_queue_workers)", "alive"), ("sum(spheroseg_worker_slots)", "slots"), ("sum(spheroseg_worker_active_jobs)", "busy")]),
        ("Time of the stages", S, quantiles("spheroseg_job_stage_seconds", "stage")),
        ("Circuit breakers (0 closed, 1 half open, 2 open)", N, [("max by (model) (spheroseg_breaker_state)", "{{model}}")]),
        ("Recovered and listed again", "ops", [("sum(rate(spheroseg_queue_recovered_total[5m]))", "recovered"), ("sum(rate(spheroseg_queue_relisted_total[5m]))", "listed again")]),
        ("Memory of the workers", B, [('process_resident_memory_bytes{job="segworker"}', "{{instance}}")]),
        ("Cores used by the workers", N, [('rate(process_cpu_seconds_total{job="segworker"}[5m])', "{{instance}}")]),
        ("Redis: time of a command", S, quantiles("spheroseg_redis_command_duration_seconds")),
    ],
    "database": [
        ("Time of a statement", S, quantiles("spheroseg_db_query_duration_seconds")),
        ("Pool", N, [("sum by (state) (spheroseg_db_pool_connections)", "{{state}}"), ("sum(spheroseg_db_pool_waiting)", "waiting"), ("sum(spheroseg_db_pool_max_connections)", "most")]),
        ("Slow statements and errors", "ops", [("sum(rate(spheroseg_db_slow_queries_total[5m]))", "slow"), ("sum by (sqlstate_class) (rate(spheroseg_db_errors_total[5m]))", "errors {{sqlstate_class}}")]),
        ("Connections at the server", N, [("sum by (state) (pg_stat_activity_count)", "{{state}}")]),
        ("Transactions", "ops", [("rate(pg_stat_database_xact_commit{datname=\"spheroseg\"}[5m])", "commits"), ("rate(pg_stat_database_xact_rollback{datname=\"spheroseg\"}[5m])", "rollbacks")]),
        ("Size", B, [('pg_database_size_bytes{datname="spheroseg"}', "database")]),
        ("Redis: memory", B, [("redis_memory_used_bytes", "used")]),
        ("Redis: commands", "ops", [("rate(redis_commands_processed_total[5m])", "commands")]),
    ],
    "host": [
        ("Cores used", N, [('sum by (instance) (rate(node_cpu_seconds_total{mode!="idle"}[5m]))', "used")]),
        ("Memory", B, [("node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes", "used"), ("node_memory_MemTotal_bytes", "all")]),
        ("Disk: free", P, [('node_filesystem_avail_bytes{fstype!~"tmpfs|overlay|squashfs"} / node_filesystem_size_bytes{fstype!~"tmpfs|overlay|squashfs"}', "{{mountpoint}}")]),
        ("Disk: busy", P, [("rate(node_disk_io_time_seconds_total[5m])", "{{device}}")]),
        ("Network", "Bps", [('rate(node_network_receive_bytes_total{device!="lo"}[5m])', "{{device}} in"), ('rate(node_network_transmit_bytes_total{device!="lo"}[5m])', "{{device}} out")]),
        ("Age of the last backup", S, [("time() - spheroseg_backup_success_timestamp_seconds", "age")]),
    ],
}


def panel(number, title, unit, targets):
    return {"id": number + 1, "type": "timeseries", "title": title,
            "datasource": {"type": "prometheus", "uid": "prometheus"},
            "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 8}}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
            "targets": [{"refId": chr(65 + i), "expr": e, "legendFormat": legend} for i, (e, legend) in enumerate(targets)]}


def dashboard(name, panels):
    return {"uid": f"spheroseg-{name}", "title": f"Spheroseg: {name.replace('-', ' ')}", "tags": ["spheroseg"], "timezone": "utc",
            "schemaVersion": 38, "refresh": "30s", "time": {"from": "now-6h", "to": "now"}, "editable": False,
            "panels": [panel(i, *p) for i, p in enumerate(panels)]}


def main():
    wrong = False
    for name, panels in DASHBOARDS.items():
        path, text = HERE / f"{name}.json", json.dumps(dashboard(name, panels), indent=1) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path} is not what make_dashboards.py writes")
            wrong = True
    return wrong


if __name__ == "__main__":
    sys.exit(main())
