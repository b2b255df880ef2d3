"""What must be true when the faults are over, and how long recovery took. The history table is the witness."""
import collections
import time

from stack import LEASE

ENDED = ("completed", "failed", "cancelled")
LEGAL = {(None, "queued"), ("queued", "active"), ("active", "completed"), ("active", "delayed"), ("active", "failed"),
         ("active", "cancelled"), ("active", "queued"), ("delayed", "queued"), ("queued", "cancelled"),
         ("delayed", "cancelled"), ("failed", "queued"), ("cancelled", "queued")}
UNFINISHED = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'active', 'delayed')"


def wait_for_the_end(stack, seconds):
    """Every job ends within `seconds`, and Redis has forgotten them. Returns (s until then, what is left)."""
    start = time.monotonic()
    left = None
    while time.monotonic() - start < seconds:
        if stack.sql(UNFINISHED) == [(0,)]:
            left = left_in_redis(stack)
            if not left:
                return time.monotonic() - start, []
        time.sleep(0.1)
    rows = stack.sql("SELECT id, state, attempt, worker_id, started_at, enqueued_at, now() FROM jobs "
                     "WHERE state IN ('queued', 'active', 'delayed') LIMIT 5")
    return time.monotonic() - start, [f"unfinished: {r}" for r in rows] + [f"left in Redis: {k}" for k in left or []]


def left_in_redis(stack):
    """Keys of jobs that are not jobs any more. What may stay: registry, epoch, counters, wake-up tokens, and what expires."""
    left = []
    for key in stack.redis_cli("--scan", "--pattern", "sg:*").split():
        if key.startswith(("sg:q:", "sg:turns:", "sg:waiting:")) or key in ("sg:lease", "sg:held"):
            left.append(key)
    return left


def check_rows(stack, ledger):
    """Sentences about rows that contradict each other; empty when all is well."""
    wrong = []

    def none(what, sql, *params):
        rows = stack.sql(sql, *params)
        if rows:
            wrong.append(f"{len(rows)} × {what}, such as {rows[0]}")
    none("completed job without exactly one result of its last attempt",
         "SELECT j.id, j.attempt, j.object_count, s.attempt, s.object_count FROM jobs j LEFT JOIN segmentations s "
         "ON s.job_id = j.id AND s.attempt = j.attempt AND s.object_count = j.object_count AND s.image_id = j.image_id "
         "WHERE j.state = 'completed' AND s.id IS NULL")
    none("result of a job that is not completed",
         "SELECT s.id, j.state FROM segmentations s LEFT JOIN jobs j ON j.id = s.job_id WHERE j.state IS DISTINCT FROM 'completed'")
    none("job with several results", "SELECT job_id FROM segmentations GROUP BY job_id HAVING count(*) > 1")
    none("result whose polygons are not as many as it says",
         "SELECT s.id, s.object_count, count(o.idx) FROM segmentations s LEFT JOIN objects o ON o.segmentation_id = s.id "
         "GROUP BY s.id HAVING count(o.idx) <> s.object_count OR COALESCE(max(o.idx), 0) <> s.object_count")
    none("image that shows no result although it has some, or another image's",
         "SELECT i.id FROM images i LEFT JOIN segmentations s ON s.id = i.current_segmentation_id "
         "WHERE EXISTS (SELECT 1 FROM segmentations x WHERE x.image_id = i.id) AND s.image_id IS DISTINCT FROM i.id")
    none("image that does not show its newest result",
         "SELECT i.id FROM images i JOIN segmentations s ON s.id = i.current_segmentation_id WHERE EXISTS "
         "(SELECT 1 FROM segmentations x WHERE x.image_id = i.id AND x.created_at > s.created_at)")
    none("failed job without a reason",
         "SELECT id FROM jobs WHERE state = 'failed' AND (error_code IS NULL OR length(COALESCE(error_message, '')) < 20)")
    none("ended job that still has a token or no end", "SELECT id, state FROM jobs WHERE state = ANY(%s) "
         "AND (finished_at IS NULL OR (state <> 'completed' AND token IS NOT NULL))", list(ENDED))
    none("job that was cancelled although nobody asked", "SELECT id FROM jobs WHERE state = 'cancelled' "
         "AND NOT id = ANY(%s::uuid[]) AND NOT project_id = ANY(%s::uuid[])",
         list(ledger.taken_back), list(ledger.cancelled_projects))
    none("job completed more than once",
         "SELECT job FROM chaos_history WHERE after = 'completed' GROUP BY job HAVING count(*) > 1")
    steps = stack.sql("SELECT before, after, count(*) FROM chaos_history WHERE after IS NOT NULL GROUP BY 1, 2")
    wrong += [f"{n} × {a} -> {b}, which is no legal change" for a, b, n in steps if (a, b) not in LEGAL]
    return wrong


def check_accepted(stack, ledger):
    """(number of accepted jobs, those that are gone without a person's wish)."""
    there = {row[0] for row in stack.sql("SELECT id::text FROM jobs")}
    lost = [job for job, image in ledger.accepted.items() if job not in there and image not in ledger.deleted]
    kept = dict(stack.sql("SELECT batch_id::text, count(*) FROM jobs WHERE batch_id IS NOT NULL GROUP BY 1"))
    gone = dict(stack.sql("SELECT h.job::text, 1 FROM chaos_history h WHERE h.after IS NULL"))
    missing = sum(max(0, n - kept.get(batch, 0)) for batch, n in ledger.batches.items())
    if missing > len(gone):
        lost += [f"{missing} jobs of batches"]
    return len(there) + len(gone), lost


def recoveries(stack, kills, spans, shared):
    """For each job that a killed worker held: s from the kill until it waited in line again, until its next claim (or its
    end as failed or cancelled), and until that claim without the time in which others in the line had their turn. Returns
    (alone, during, details), the first two lists of such triples: those during or just after an outage of what all share,
    PostgreSQL or Redis, stand apart, for then nobody can recover anything. details: words about the slowest."""
    history = collections.defaultdict(list)
    for job, at, after, worker in stack.sql(
            "SELECT job::text, extract(epoch FROM at)::float8, after, worker FROM chaos_history ORDER BY n"):
        history[job].append((at, after, worker))
    claims = sorted(s[0] for steps in history.values() for s in steps if s[1] == "active")
    found = []
    for at, worker in kills:
        for job, steps in history.items():
            before = [s for s in steps if s[0] <= at]
            later = [s for s in steps if s[0] > at]
            if not before or before[-1][1:] != ("active", worker) or not later:
                continue
            if later[0][1] is None or (later[0][1] == "completed" and later[0][0] < at + 1):
                continue  # deleted with its image; committed just before the kill
            end = next((s[0] for s in later if s[1] in ("active", *ENDED)), None)
            again = next((s[0] for s in later if s[1] in ("queued", "active", *ENDED)), None)
            if end is not None:
                meanwhile = [s for s in spans if s[2] < end and (s[3] or end) > at - (LEASE if s[0] in shared else 0)]
                turn = max((c for c in claims if again < c < end), default=again)
                found.append((end - at, again - at, again - at + end - turn, job, worker, meanwhile, at))
    found.sort(key=lambda f: -f[0])
    alone = [(f[1], f[0], f[2]) for f in found if not any(s[0] in shared for s in f[5])]
    during = [(f[1], f[0], f[2]) for f in found if any(s[0] in shared for s in f[5])]
    details = [f"{total:.2f} s, in line again after {again:.2f} s: {job} of {worker}, during "
               + (", ".join(f"{kind} {target} {begin - at:+.1f}..{(over or 0) - at:+.1f}" for kind, target, begin, over in spans) or "nothing")
               for total, again, _, job, worker, spans, at in found[:4]]
    return alone, during, details


def percentile(values, share):
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
