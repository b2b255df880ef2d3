-- Ends a claim: the job leaves the worker's processing list and its lease is dropped. With 'front' or 'back' it waits
-- again in the same step (a hand-back); with 'drop' it is gone from Redis.
--
-- KEYS[1]  sg:proc:<worker>   KEYS[2]  sg:procs   KEYS[3]  sg:lease
-- ARGV[1]  worker id   ARGV[2]  job id   ARGV[3]  'drop', 'front' or 'back'
-- ARGV[4]  model   ARGV[5]  priority   ARGV[6]  user id   (used unless 'drop')
-- Reply    1, or 0 when the job is no longer this worker's (then only the worker's own list was cleaned)
--
-- Touches sg:job:<id> and, unless 'drop', what enqueue.lua touches.
local worker, id = ARGV[1], ARGV[2]
local key = 'sg:job:' .. id

redis.call('LREM', KEYS[1], 0, id)
if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('SREM', KEYS[2], worker)
end
local known = redis.call('EXISTS', key) == 1
if known and redis.call('HGET', key, 'worker') ~= worker then
    return 0
end
redis.call('ZREM', KEYS[3], id)
redis.call('DEL', key)

if ARGV[3] == 'drop' then
    -- A worker that was thought dead and still heartbeats must learn that the job is not its own any more.
    redis.call('HSET', key, 'worker', '')
    redis.call('EXPIRE', key, 7200)
    return 1
end

local now = redis.call('TIME')
local model, priority, user = ARGV[4], ARGV[5], ARGV[6]
local q = 'sg:q:' .. model .. ':' .. priority .. ':' .. user
local ring = 'sg:ring:' .. model .. ':' .. priority
redis.call('HSET', key, 'model', model, 'priority', priority, 'user', user, 'list', q,
           'at', now[1] * 1000 + math.floor(now[2] / 1000))
redis.call(ARGV[3] == 'front' and 'RPUSH' or 'LPUSH', q, id)
redis.call('HINCRBY', 'sg:count:' .. model, priority, 1)
if not redis.call('LPOS', ring, user) then
    redis.call('LPUSH', ring, user)
end
redis.call('LPUSH', 'sg:wake:' .. model, '1')
redis.call('LTRIM', 'sg:wake:' .. model, 0, 63)
return 1
