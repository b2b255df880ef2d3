-- Outlines of the finished regions of an image whose job still runs (proto/jobs.md, Previews). They are never the result:
-- nothing reads them but the preview route, and only while the claim that wrote them holds the job. Unlogged: a database
-- that crashes forgets them, and no standby or backup carries them.
CREATE UNLOGGED TABLE previews (
    job_id  uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    claim   text NOT NULL,                             -- the first 16 digits of jobs.token
    part    integer NOT NULL CHECK (part BETWEEN 1 AND 64),
    objects integer NOT NULL CHECK (objects > 0),
    data    bytea NOT NULL CHECK (length(data) <= 1048576),  -- objects as in the viewer's stream (proto/polygons.md)
    PRIMARY KEY (job_id, claim, part)
);
