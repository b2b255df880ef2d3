// The reference for bench_submit.py: the submit route as a small, competent Node server would have it. HTTPS with the
// gateway's own certificate, Express, pg with named (prepared) statements and a pool of the same size, BullMQ.
// It checks the token, makes the row durable if the image is the caller's (one statement, one round trip), enqueues, answers
// 202; nothing else, and Express's own ETag is switched off. The gateway
// also looks for an unfinished job of the image, checks the model and two bounds, moves images.latest_job_id, tells the
// position, publishes an event and counts metrics.
import { readFileSync } from 'node:fs';
import https from 'node:https';
import { Queue } from 'bullmq';
import express from 'express';
import jwt from 'jsonwebtoken';
import pg from 'pg';

const env = process.env;
const pool = new pg.Pool({ connectionString: env.DATABASE_URL, max: Number(env.POOL) });
const url = new URL(env.REDIS_URL);
const queue = new Queue('bench', { connection: {
    host: url.hostname, port: Number(url.port), password: decodeURIComponent(url.password) } });

const app = express();
app.disable('x-powered-by');
app.disable('etag');
app.use(express.json());

app.use((req, res, next) => {
    const header = req.headers.authorization ?? '';
    try {
        req.user = jwt.verify(header.replace(/^Bearer /, ''), env.JWT_SECRET, { algorithms: ['HS256'] });
        next();
    } catch {
        res.status(401).json({ code: 'sign_in_required' });
    }
});

app.post('/api/images/:imageId/segmentation', async (req, res) => {
    const priority = req.body?.priority ?? 5;
    const job = await pool.query({
        name: 'insert', values: [req.user.sub, req.params.imageId, 'bench', priority],
        text: `INSERT INTO jobs (user_id, project_id, image_id, model, detect_holes, priority, enqueued_at)
               SELECT p.owner_id, p.id, i.id, $3, p.detect_holes, $4, now()
               FROM images i JOIN projects p ON p.id = i.project_id WHERE i.id = $2 AND p.owner_id = $1
               RETURNING id` });
    if (job.rowCount === 0) {
        return res.status(404).json({ code: 'not_found' });
    }
    const jobId = job.rows[0].id;
    await queue.add('segment', { jobId }, { jobId, priority: 11 - priority, removeOnComplete: true });
    res.status(202).location(`/api/segmentation/job/${jobId}`)
        .json({ jobId, imageId: req.params.imageId, state: 'queued', existing: false });
});

await queue.waitUntilReady();
const server = https.createServer({ cert: readFileSync(env.TLS_CERT), key: readFileSync(env.TLS_KEY) }, app);
server.keepAliveTimeout = 60000;
server.listen(Number(env.PORT), '127.0.0.1', () => console.log('ready'));
