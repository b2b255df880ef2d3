// The same jobs through BullMQ, for bench_queue.py. Prints one JSON line.
//
//   node bullmq.mjs TEST N K [C]
//     enqueue     N jobs, K in flight at a time
//     bulk        N jobs, addBulk of 500
//     process     N no-op jobs by one Worker with concurrency K (the jobs wait already)
//     processes   the same by K Workers with concurrency C (1)
//     dispatch    N jobs, one every K ms, to an idle Worker in the same process
//
// Finished jobs are removed at once, as ours are, so that both do the least work they can.
import { Queue, Worker } from 'bullmq';
import { performance } from 'node:perf_hooks';

const [test, nText, kText, cText] = process.argv.slice(2);
const n = Number(nText), k = Number(kText), c = Number(cText ?? 1);
const url = new URL(process.env.REDIS_URL);
const connection = { host: url.hostname, port: Number(url.port), password: decodeURIComponent(url.password),
                     maxRetriesPerRequest: null };
const options = { removeOnComplete: true, removeOnFail: true };
const id = i => `00000000-0000-4000-9000-${String(i).padStart(12, '0')}`;
const queue = new Queue('bench', { connection });
await queue.waitUntilReady();

async function enqueue() {
    for (let i = 0; i < 20; i++) await queue.add('warm', { jobId: id(i) }, options);   // scripts loaded, code compiled
    await queue.drain();
    const start = performance.now();
    let next = 0;
    const lane = async () => {
        for (let i = ++next; i <= n; i = ++next) await queue.add('noop', { jobId: id(i) }, options);
    };
    await Promise.all(Array.from({ length: k }, lane));
    return { jobs: n, seconds: (performance.now() - start) / 1000 };
}

async function bulk() {
    const start = performance.now();
    for (let from = 1; from <= n; from += 500) {
        const jobs = [];
        for (let i = from; i < from + 500 && i <= n; i++) jobs.push({ name: 'noop', data: { jobId: id(i) }, opts: options });
        await queue.addBulk(jobs);
    }
    return { jobs: n, seconds: (performance.now() - start) / 1000 };
}

async function work(count, concurrency) {
    let done = 0, finish, start = 0;
    const all = new Promise(resolve => { finish = resolve; });
    const workers = [];
    for (let i = 0; i < count; i++) {
        const w = new Worker('bench', async () => {}, { connection, concurrency, autorun: false });
        w.on('completed', () => { if (++done === n) finish(); });
        await w.waitUntilReady();
        workers.push(w);
    }
    start = performance.now();
    for (const w of workers) w.run();
    await all;
    const seconds = (performance.now() - start) / 1000;
    await Promise.all(workers.map(w => w.close(true)));
    return { jobs: n, seconds };
}

async function dispatch() {
    const sent = new Map(), latenciesUs = [];
    let finish;
    const all = new Promise(resolve => { finish = resolve; });
    const worker = new Worker('bench', async job => {
        latenciesUs.push(Math.round((performance.now() - sent.get(job.data.jobId)) * 1000));
        if (latenciesUs.length === n) finish();
    }, { connection });
    await worker.waitUntilReady();
    await new Promise(resolve => setTimeout(resolve, 300));
    for (let i = 1; i <= n; i++) {
        sent.set(id(i), performance.now());
        await queue.add('noop', { jobId: id(i) }, options);
        await new Promise(resolve => setTimeout(resolve, k));
    }
    await all;
    await worker.close(true);
    return { latenciesUs };
}

const tests = { enqueue, bulk, process: () => work(1, k), processes: () => work(k, c), dispatch };
console.log(JSON.stringify(await tests[test]()));
await queue.close();
process.exit(0);
