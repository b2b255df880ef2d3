-- Finds jobs whose lease has run out and moves each to the sweeper's own processing list, with a lease of its own, in
-- one step: an id is at every moment in exactly one list, so a sweeper that dies half-way loses nothing. The processing
-- lists themselves are read, not only the lease index.
--
-- KEYS[1]  sg:lease   KEYS[2]  sg:procs   KEYS[3]  sg:workers
-- ARGV[1]  sweeper id   ARGV[2]  sweeper's lease, ms   ARGV[3]  at most so many jobs   ARGV[4]  workers' silence, ms
-- Reply    flat array: job id, worker that lost it, …
--
-- Touches sg:proc:*, sg:job:<id>; drops registry entries of workers silent for ARGV[4] ms.
local me, lease, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local found = {}

local function take(id, worker)
    local key = 'sg:job:' .. id
    local lost = redis.call('HGET', key, 'lost') or ''
    if lost == '' then
        lost = worker
    end
    if worker ~= '' then
        redis.call('LREM', 'sg:proc:' .. worker, 0, id)
    end
    redis.call('LREM', 'sg:proc:' .. me, 0, id)
    redis.call('LPUSH', 'sg:proc:' .. me, id)
    redis.call('SADD', KEYS[2], me)
    redis.call('ZADD', KEYS[1], ms + lease, id)
    redis.call('HSET', key, 'worker', me, 'lost', lost)
    redis.call('EXPIRE', key, 86400)
    found[#found + 1] = id
    found[#found + 1] = lost
end

for _, worker in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    local proc = 'sg:proc:' .. worker
    for _, id in ipairs(redis.call('LRANGE', proc, 0, -1)) do
        local holder = redis.call('HGET', 'sg:job:' .. id, 'worker') or worker
        local deadline = tonumber(redis.call('ZSCORE', KEYS[1], id) or 0)
        if holder ~= worker then
            redis.call('LREM', proc, 0, id)
        elseif deadline <= ms and #found < 2 * limit then
            take(id, worker)
        end
    end
    if redis.call('EXISTS', proc) == 0 then
        redis.call('SREM', KEYS[2], worker)
    end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ms, 'LIMIT', 0, limit)) do
    take(id, redis.call('HGET', 'sg:job:' .. id, 'worker') or '')
end

local workers = redis.call('HGETALL', KEYS[3])
for i = 1, #workers, 2 do
    local seen = tonumber(string.match(workers[i + 1], '"seenAt":(%d+)') or 0)
    if seen < ms - tonumber(ARGV[4]) then
        redis.call('HDEL', KEYS[3], workers[i])
    end
end
return found
