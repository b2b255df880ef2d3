/* The one table of configuration variables. See config.h for how it is read.
 * CFG_*(field, "NAME", default, [min, max,] scope, "help") */

/* where things are */
CFG_SECRET(database_url, "DATABASE_URL", "", CONFIG_BOTH, "PostgreSQL connection URI (required)")
CFG_SECRET(redis_url, "REDIS_URL", "redis://127.0.0.1:6379/0", CONFIG_BOTH, "redis://[user:password@]host:port/db, unix:///path[?db=N], or redis-sentinel://[user:password@]host:port,host:port/primary/db")
CFG_STR(storage_dir, "STORAGE_DIR", "./data/storage", CONFIG_BOTH, "directory that holds images and derived files (with STORAGE_URL: files on their way)")
CFG_STR(models_dir, "MODELS_DIR", "segworker/models", CONFIG_WORKER, "directory with one folder per model")
CFG_STR(migrations_dir, "MIGRATIONS_DIR", "proto/sql", CONFIG_GATEWAY, "directory with the SQL migrations")
CFG_STR(ui_dir, "UI_DIR", "build/ui", CONFIG_GATEWAY, "directory with the built browser UI")
CFG_STR(listen_host, "LISTEN_HOST", "0.0.0.0", CONFIG_GATEWAY, "address to listen on")
CFG_INT(https_port, "HTTPS_PORT", 8443, 1, 65535, CONFIG_GATEWAY, "TLS port")
CFG_INT(http_port, "HTTP_PORT", 8080, 0, 65535, CONFIG_GATEWAY, "plain port that only redirects to TLS; 0 = none")
CFG_INT(metrics_port, "METRICS_PORT", 9464, 0, 65535, CONFIG_BOTH, "loopback port for /metrics and health; 0 = none")
CFG_STR(metrics_host, "METRICS_HOST", "127.0.0.1", CONFIG_BOTH, "address of the metrics port")
CFG_STR(public_url, "PUBLIC_URL", "", CONFIG_GATEWAY, "https URL that people use; empty = from the Host header")
CFG_STR(tls_dir, "TLS_DIR", "./data/tls", CONFIG_GATEWAY, "where a self-signed certificate is generated when TLS_CERT is empty")
CFG_STR(tls_cert, "TLS_CERT", "", CONFIG_GATEWAY, "PEM file: certificate chain")
CFG_STR(tls_key, "TLS_KEY", "", CONFIG_GATEWAY, "PEM file: private key")

/* HTTP */
CFG_INT(http_threads, "HTTP_THREADS", 96, 8, 4096, CONFIG_GATEWAY, "connection threads (WebSockets have their own)")
CFG_INT(max_upload_size, "MAX_UPLOAD_SIZE", 2147483648LL, 1024, 1099511627776LL, CONFIG_BOTH, "largest image file, bytes")
CFG_INT(request_timeout_ms, "REQUEST_TIMEOUT", 30000, 1000, 600000, CONFIG_GATEWAY, "ms that one read of a request may take")
CFG_STR(allowed_origins, "ALLOWED_ORIGINS", "", CONFIG_GATEWAY, "further origins for CORS and WebSocket, comma-separated")
CFG_STR(trusted_proxies, "TRUSTED_PROXIES", "", CONFIG_GATEWAY, "addresses or networks of reverse proxies, comma-separated, whose X-Forwarded-For and -Proto count; empty = none")
CFG_SECRET(jwt_secret, "JWT_SECRET", "", CONFIG_GATEWAY, "at least 32 characters; signs access tokens (empty: generated and kept in TLS_DIR)")
CFG_INT(access_ttl_s, "ACCESS_TOKEN_TTL", 900, 5, 86400, CONFIG_GATEWAY, "seconds an access token is valid")
CFG_INT(refresh_ttl_s, "REFRESH_TOKEN_TTL", 2592000, 60, 31536000, CONFIG_GATEWAY, "seconds a refresh token is valid")
CFG_BOOL(allow_registration, "ALLOW_REGISTRATION", true, CONFIG_GATEWAY, "may people make their own accounts")
CFG_INT(login_rate, "LOGIN_RATE_LIMIT", 20, 1, 100000, CONFIG_GATEWAY, "failed sign-ins per address and quarter of an hour")
CFG_INT(ws_threads, "WS_THREADS", 2, 1, 64, CONFIG_GATEWAY, "threads that serve all WebSockets")
CFG_INT(ws_max_total, "WS_MAX_TOTAL", 1000, 1, 100000, CONFIG_GATEWAY, "WebSockets in all, each needs a file descriptor")
CFG_INT(ws_max_per_user, "WS_MAX_PER_USER", 8, 1, 10000, CONFIG_GATEWAY, "WebSockets per user")
CFG_INT(ws_queue_max, "WS_QUEUE_MAX", 256, 8, 65536, CONFIG_GATEWAY, "messages that may wait for one slow WebSocket")
CFG_INT(ws_ping_ms, "WS_PING_INTERVAL", 20000, 100, 3600000, CONFIG_GATEWAY, "ms between pings of a WebSocket; who answers none of two is cut off")
CFG_INT(max_images_per_project, "MAX_IMAGES_PER_PROJECT", 10000, 1, 10000000, CONFIG_GATEWAY, "images in one project")
CFG_INT(max_queued_per_user, "MAX_QUEUED_PER_USER", 20000, 1, 10000000, CONFIG_GATEWAY, "unfinished jobs of one user (429 above)")
CFG_INT(max_queued_total, "MAX_QUEUED_TOTAL", 200000, 1, 100000000, CONFIG_GATEWAY, "unfinished jobs in all (503 above)")

CFG_BOOL(cache_enabled, "CACHE_ENABLED", true, CONFIG_GATEWAY, "keep pages of outlines in Redis for those who read them again (X-Cache)")
CFG_INT(cache_ttl_s, "CACHE_TTL", 3600, 1, 604800, CONFIG_GATEWAY, "seconds that they are kept")
CFG_INT(cache_max_size, "CACHE_MAX_SIZE", 67108864LL, 0, 1099511627776LL, CONFIG_GATEWAY, "bytes of Redis's memory for them; what was put first goes first")

/* images */
CFG_INT(max_image_pixels, "MAX_IMAGE_PIXELS", 400000000LL, 1, 100000000000LL, CONFIG_BOTH, "largest width x height that is decoded")
CFG_INT(max_decoded_bytes, "MAX_DECODED_BYTES", 4294967296LL, 1048576, 1099511627776LL, CONFIG_BOTH, "largest decoded image, bytes")
CFG_INT(max_image_pages, "MAX_IMAGE_PAGES", 10000, 1, 1000000, CONFIG_BOTH, "most pages of one file")

/* PostgreSQL pool (V5) */
CFG_INT(db_pool_max, "DB_POOL_MAX", 20, 1, 1000, CONFIG_BOTH, "connections")
CFG_INT(db_pool_idle_ms, "DB_POOL_IDLE_TIMEOUT", 30000, 100, 86400000, CONFIG_BOTH, "ms after which an idle connection is closed")
CFG_INT(db_acquire_ms, "DB_POOL_ACQUIRE_TIMEOUT", 5000, 10, 600000, CONFIG_BOTH, "ms to wait for a free connection (503 after)")
CFG_INT(db_max_uses, "DB_POOL_MAX_USES", 10000, 1, 100000000, CONFIG_BOTH, "uses after which a connection is replaced")
CFG_BOOL(db_prepare, "DB_PREPARED_STATEMENTS", true, CONFIG_BOTH, "prepare repeated statements; false behind a pooler that shares sessions")
CFG_INT(db_slow_ms, "DB_SLOW_QUERY", 500, 1, 600000, CONFIG_BOTH, "ms from which a query is logged and counted as slow")
CFG_INT(db_statement_ms, "DB_STATEMENT_TIMEOUT", 30000, 100, 3600000, CONFIG_BOTH, "ms after which the server ends a statement")

/* Redis */
CFG_INT(redis_timeout_ms, "REDIS_TIMEOUT", 2000, 10, 600000, CONFIG_BOTH, "ms to connect and for one command")
CFG_STR(redis_sentinel_user, "REDIS_SENTINEL_USER", "", CONFIG_BOTH, "name at the Sentinels themselves, if they want one")
CFG_SECRET(redis_sentinel_password, "REDIS_SENTINEL_PASSWORD", "", CONFIG_BOTH, "password at the Sentinels themselves; empty = none")
CFG_INT(redis_pool_max, "REDIS_POOL_MAX", 16, 1, 1000, CONFIG_BOTH, "connections")

/* start and stop */
CFG_INT(start_timeout_s, "START_TIMEOUT", 60, 0, 3600, CONFIG_BOTH, "seconds to wait for PostgreSQL and Redis at start")
CFG_INT(stop_timeout_s, "STOP_TIMEOUT", 20, 1, 3600, CONFIG_BOTH, "seconds that a graceful stop may take")
/* gateway heartbeat */
CFG_STR(heartbeat_url, "HEARTBEAT_URL", "https://localhost:8443", CONFIG_GATEWAY, "heartbeat: address that it goes through")
CFG_INT(heartbeat_interval_s, "HEARTBEAT_INTERVAL", 60, 5, 86400, CONFIG_GATEWAY, "heartbeat: seconds from one to the next")
CFG_STR(heartbeat_email, "HEARTBEAT_EMAIL", "heartbeat@spheroseg.local", CONFIG_GATEWAY, "heartbeat: its account, made when it is missing")
CFG_SECRET(heartbeat_password, "HEARTBEAT_PASSWORD", "", CONFIG_GATEWAY, "heartbeat: its password")
CFG_STR(heartbeat_ca, "HEARTBEAT_CA", "", CONFIG_GATEWAY, "heartbeat: PEM file of the authority to trust; empty = the system's; none = do not check")
CFG_STR(heartbeat_model, "HEARTBEAT_MODEL", "nuclei", CONFIG_GATEWAY, "heartbeat: model that segments its image")

CFG_STR(log_level, "LOG_LEVEL", "info", CONFIG_BOTH, "error, warn, info or debug")

/* the queue and the worker */
CFG_INT(queue_concurrency, "QUEUE_CONCURRENCY", 1, 1, 64, CONFIG_WORKER, "jobs that one worker runs at a time")
CFG_INT(claim_ahead_ms, "QUEUE_CLAIM_AHEAD", 20, 0, 10000, CONFIG_WORKER, "ms of work, as measured, that is claimed at once when jobs are quick, at most 16 of them; 0 = one at a time")
CFG_INT(lease_ms, "JOB_LEASE", 30000, 1000, 3600000, CONFIG_BOTH, "ms a claim is valid without a heartbeat")
CFG_INT(max_attempts, "JOB_MAX_ATTEMPTS", 3, 1, 20, CONFIG_GATEWAY, "attempts of a job")
CFG_INT(backoff_ms, "JOB_BACKOFF", 2000, 10, 3600000, CONFIG_BOTH, "ms, first back-off step; doubles with each attempt, full jitter")
CFG_INT(ml_timeout_ms, "ML_SERVICE_TIMEOUT", 300000, 1000, 86400000, CONFIG_WORKER, "ms one job may run")
CFG_INT(job_retention_days, "JOB_RETENTION_DAYS", 7, 1, 3650, CONFIG_BOTH, "days that finished jobs without a shown result are kept")
CFG_STR(device, "SEGWORKER_DEVICE", "auto", CONFIG_WORKER, "auto, cpu, cuda or cuda:N")
CFG_INT(torch_threads, "SEGWORKER_THREADS", 0, 0, 1024, CONFIG_WORKER, "cores that inference uses in all; 0 = every one")
CFG_INT(lanes, "SEGWORKER_LANES", 0, 0, 64, CONFIG_WORKER, "tiles computed side by side, with equal shares of SEGWORKER_THREADS; 0 = measured at start")
CFG_INT(batch, "SEGWORKER_BATCH", 0, 0, 64, CONFIG_WORKER, "tiles, also of different images, that go through a network together; 0 = 1 on the CPU, 8 on an accelerator")
CFG_INT(batch_wait_ms, "SEGWORKER_BATCH_WAIT", 2, 0, 1000, CONFIG_WORKER, "ms that a tile waits for others of its batch")
CFG_STR(worker_models, "SEGWORKER_MODELS", "", CONFIG_WORKER, "models to serve, comma-separated; empty = all in MODELS_DIR")
CFG_BOOL(result_cache, "RESULT_CACHE", true, CONFIG_WORKER, "reuse a user's earlier result of the same bytes, model and settings")
CFG_INT(window_px, "SEGWORKER_WINDOW", 0, 0, 65536, CONFIG_WORKER, "px; images run in windows of this size; 0 = large ones only, as memory asks")
CFG_INT(max_objects, "MAX_OBJECTS", 200000, 1, 10000000, CONFIG_WORKER, "most objects of one image; more is an error that says so")

/* storage in S3, and the breaker */
CFG_STR(storage_url, "STORAGE_URL", "", CONFIG_BOTH, "s3://bucket/prefix: images and derived files are there; empty = in STORAGE_DIR")
CFG_STR(s3_endpoint, "S3_ENDPOINT", "", CONFIG_BOTH, "URL of an S3 server; empty = Amazon's of S3_REGION")
CFG_STR(s3_region, "S3_REGION", "us-east-1", CONFIG_BOTH, "region that requests are signed for")
CFG_SECRET(s3_access_key, "S3_ACCESS_KEY", "", CONFIG_BOTH, "name of the key for STORAGE_URL")
CFG_SECRET(s3_secret_key, "S3_SECRET_KEY", "", CONFIG_BOTH, "the key itself")
CFG_BOOL(s3_path_style, "S3_PATH_STYLE", true, CONFIG_BOTH, "endpoint/bucket/key; false = bucket.endpoint/key")
CFG_BOOL(breaker_enabled, "ENABLE_CIRCUIT_BREAKER", true, CONFIG_BOTH, "guard each model by a circuit breaker")
CFG_REAL(breaker_threshold, "ML_ERROR_THRESHOLD", 50.0, 1.0, 100.0, CONFIG_BOTH, "percent of failed runs that opens the breaker")
