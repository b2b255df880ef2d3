-- What gateways are pushing to Redis: each group of requests that is accepted in one transaction overwrites the row of
-- its lane. A row that stays as it is belongs to a lane that is idle, or to a gateway that died between commit and
-- push; the sweeper looks whether its jobs are in Redis, and deletes it. See proto/jobs.md.
CREATE TABLE pushes (
    gateway text NOT NULL,                             -- random, new at each start
    lane    integer NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    ids     uuid[] NOT NULL,
    PRIMARY KEY (gateway, lane)
) WITH (fillfactor = 50);
-- images.latest_job_id changes with each job: room on the page, so that no index has to be written for it.
ALTER TABLE images SET (fillfactor = 85);
