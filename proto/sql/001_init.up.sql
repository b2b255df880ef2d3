-- Users, sessions, projects, images, jobs, segmentations and their objects.
-- Every table that a person owns reaches users(id) through ON DELETE CASCADE, so that deleting an
-- account really deletes it. Times are timestamptz; the API prints them as RFC 3339 UTC.

CREATE TABLE users (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email         text NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
    display_name  text NOT NULL DEFAULT '' CHECK (length(display_name) <= 120),
    password_hash text NOT NULL,                       -- Argon2id, PHC string format
    role          text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    created_at    timestamptz NOT NULL DEFAULT now(),
    disabled_at   timestamptz
);
-- Addresses are compared without regard to case, as people type them.
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

-- One row per refresh token ever issued and not yet expired. Tokens of one login form a family;
-- presenting a token that was already rotated revokes the whole family (reuse detection).
CREATE TABLE refresh_tokens (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    family_id   uuid NOT NULL,
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    token_hash  bytea NOT NULL UNIQUE,                 -- SHA-256 of the token; the token is never stored
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    rotated_at  timestamptz,
    revoked_at  timestamptz,
    user_agent  text NOT NULL DEFAULT ''
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family_id);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

CREATE TABLE projects (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    owner_id       uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    title          text NOT NULL CHECK (length(title) BETWEEN 1 AND 255),
    description    text NOT NULL DEFAULT '' CHECK (length(description) <= 1000),
    default_model  text,                               -- NULL: the first model that a worker registered
    default_threshold double precision CHECK (default_threshold BETWEEN 0.1 AND 0.9),
    detect_holes   boolean NOT NULL DEFAULT true,
    is_sample      boolean NOT NULL DEFAULT false,
    version        integer NOT NULL DEFAULT 1,         -- ETag / If-Match
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX projects_owner ON projects (owner_id, created_at DESC, id DESC);

CREATE TABLE images (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    project_id    uuid NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name          text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    format        text NOT NULL CHECK (format IN ('png', 'jpeg', 'tiff', 'bmp', 'gif', 'webp')),
    byte_size     bigint NOT NULL CHECK (byte_size > 0),
    sha256        bytea NOT NULL CHECK (length(sha256) = 32),
    storage_key   text NOT NULL,
    width         integer NOT NULL CHECK (width > 0),
    height        integer NOT NULL CHECK (height > 0),
    bit_depth     smallint NOT NULL,                   -- bits per sample in the file
    channels      smallint NOT NULL,
    pages         integer NOT NULL DEFAULT 1,
    pixel_size_um double precision CHECK (pixel_size_um > 0),
    current_segmentation_id uuid,                      -- what the viewer shows; see segmentations
    latest_job_id uuid,
    version       integer NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX images_project ON images (project_id, created_at DESC, id DESC);

-- What workers can run. A worker upserts its models at start; the gateway validates jobs against it.
CREATE TABLE models (
    name        text PRIMARY KEY,
    version     text NOT NULL,
    title       text NOT NULL,
    description text NOT NULL,
    sha256      text NOT NULL,
    manifest    jsonb NOT NULL,                        -- model.json as shipped
    seen_at     timestamptz NOT NULL DEFAULT now()
);

-- The truth about jobs (DESIGN I1-I3). Redis can be rebuilt from this table. See proto/jobs.md.
CREATE TABLE jobs (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    kind          text NOT NULL DEFAULT 'segment' CHECK (kind IN ('segment')),
    user_id       uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    project_id    uuid NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    image_id      uuid NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    batch_id      uuid,
    model         text NOT NULL,
    threshold     double precision CHECK (threshold BETWEEN 0.1 AND 0.9),  -- NULL: the model's own
    detect_holes  boolean NOT NULL DEFAULT true,
    priority      smallint NOT NULL DEFAULT 5 CHECK (priority BETWEEN 1 AND 10),  -- 10 first
    state         text NOT NULL DEFAULT 'queued'
                  CHECK (state IN ('queued', 'active', 'delayed', 'completed', 'failed', 'cancelled')),
    seq           bigint NOT NULL DEFAULT 1,           -- last durable event, see proto/events.md
    attempt       integer NOT NULL DEFAULT 0,          -- claims so far; fences stale workers (I2)
    max_attempts  integer NOT NULL DEFAULT 3 CHECK (max_attempts BETWEEN 1 AND 20),
    token         text,                                -- random, new at each claim; NULL when not active
    worker_id     text,
    cancel_requested boolean NOT NULL DEFAULT false,
    run_after     timestamptz NOT NULL DEFAULT now(),  -- for 'delayed': when the next attempt may start
    enqueued_at   timestamptz,                         -- when it was last pushed to Redis; NULL = outbox
    created_at    timestamptz NOT NULL DEFAULT now(),
    started_at    timestamptz,
    finished_at   timestamptz,
    stage         text NOT NULL DEFAULT '',            -- last durable stage name
    error_code    text,
    error_message text,                                -- words for a biologist
    error_detail  text,                                -- words for an operator; never shown to users
    object_count  integer,
    timings       jsonb                                -- seconds by stage
);
CREATE INDEX jobs_unfinished ON jobs (state, priority DESC, created_at)
    WHERE state IN ('queued', 'active', 'delayed');
CREATE INDEX jobs_outbox ON jobs (created_at) WHERE state = 'queued' AND enqueued_at IS NULL;
CREATE INDEX jobs_image ON jobs (image_id, created_at DESC);
CREATE INDEX jobs_project ON jobs (project_id, created_at DESC, id DESC);
CREATE INDEX jobs_user_state ON jobs (user_id, state);
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
-- At most one unfinished job for an image: a second trigger returns the first (idempotent by nature).
CREATE UNIQUE INDEX jobs_one_unfinished_per_image ON jobs (image_id)
    WHERE state IN ('queued', 'active', 'delayed');

-- A finished result. Re-segmentation adds a row: history is kept (H3).
CREATE TABLE segmentations (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    image_id      uuid NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    job_id        uuid NOT NULL UNIQUE REFERENCES jobs (id) ON DELETE CASCADE,
    attempt       integer NOT NULL,
    model         text NOT NULL,
    model_version text NOT NULL,
    model_sha256  text NOT NULL,
    threshold     double precision NOT NULL,
    detect_holes  boolean NOT NULL,
    width         integer NOT NULL,
    height        integer NOT NULL,
    object_count  integer NOT NULL,
    note          text NOT NULL DEFAULT '',            -- e.g. why nothing was found
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX segmentations_image ON segmentations (image_id, created_at DESC);
ALTER TABLE images ADD CONSTRAINT images_current_segmentation_fk
    FOREIGN KEY (current_segmentation_id) REFERENCES segmentations (id) ON DELETE SET NULL;

-- One object (cell, nucleus, spheroid) of a segmentation.
CREATE TABLE objects (
    segmentation_id uuid NOT NULL REFERENCES segmentations (id) ON DELETE CASCADE,
    idx           integer NOT NULL CHECK (idx >= 1),   -- 1..N, raster order of the first pixel
    bbox          box NOT NULL,                        -- px, for viewport queries
    geometry      bytea NOT NULL,                      -- proto/polygons.md
    area          double precision NOT NULL,           -- px², holes subtracted
    confidence    real NOT NULL,                       -- mean foreground probability inside, 0..1
    measurements  jsonb NOT NULL,                      -- proto/polygons.md
    PRIMARY KEY (segmentation_id, idx)
);
CREATE INDEX objects_bbox ON objects USING gist (bbox);

-- Idempotency-Key of creating requests: the stored answer is repeated for 24 hours.
CREATE TABLE idempotency_keys (
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key         text NOT NULL CHECK (length(key) BETWEEN 1 AND 128),
    method_path text NOT NULL,
    status      integer NOT NULL,
    body        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
