-- Ends a claim: the job leaves the worker's processing list and its lease is dropped. With 'front' or 'back' it waits
-- again in the same step (a hand-back); with 'drop' it is gone from Redis.
--
-- KEYS[1]  sg:proc:<worker>   KEYS[2]  sg:procs   KEYS[3]  sg:lease
-- ARGV[1]  worker id   ARGV[2]  job id   ARGV[3]  'drop', 'front' or 'back'
-- ARGV[4]  model   ARGV[5]  priority   ARGV[6]  user id   (used unless 'drop')
-- ARGV[7…] further job ids, with 'drop' only
-- Reply    number of claims ended; a job that is no longer this worker's is only taken out of the worker's own list
--
-- Touches sg:job:<id> and, unless 'drop', what enqueue.lua touches.
local worker, id = ARGV[1], ARGV[2]

-- Ends the claim of one job. False: it is no longer this worker's.
local function let_go(one)
    local key = 'sg:job:' .. one
    redis.call('LREM', KEYS[1], 0, one)
    if redis.call('EXISTS', key) == 1 and redis.call('HGET', key, 'worker') ~= worker then
        return false
    end
    redis.call('ZREM', KEYS[3], one)
    redis.call('DEL', key)
    if ARGV[3] == 'drop' then
        -- A worker that was thought dead and still heartbeats must learn that the job is not its own any more.
        redis.call('HSET', key, 'worker', '')
        redis.call('EXPIRE', key, 7200)
    end
    return true
end

local ended = let_go(id) and 1 or 0
if ARGV[3] == 'drop' then
    for i = 7, #ARGV do
        ended = ended + (let_go(ARGV[i]) and 1 or 0)
    end
end
if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('SREM', KEYS[2], worker)
end
if ARGV[3] == 'drop' or ended == 0 then
    return ended
end

local now = redis.call('TIME')
local key, model, priority, user = 'sg:job:' .. id, ARGV[4], ARGV[5], ARGV[6]
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
