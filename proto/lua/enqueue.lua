-- Puts waiting jobs into their lists. Idempotent: a job that waits already, or that a worker holds, is left alone,
-- so the gateway and any number of sweepers may push the same job.
--
-- KEYS[1]  sg:lease
-- ARGV[1]  'back' (served after the others of its user) or 'front' (served next)
-- ARGV[2…] four per job: id, model, priority, user id
-- Reply    array, one integer per job: 1 pushed, 0 was waiting, -1 is held by a worker
--
-- Touches sg:job:<id>, sg:q:<model>:<priority>:<user>, sg:ring:<model>:<priority>, sg:count:<model>, sg:wake:<model>.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local replies, pushed = {}, {}

for i = 2, #ARGV, 4 do
    local id, model, priority, user = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    local key = 'sg:job:' .. id
    local held = redis.call('HMGET', key, 'worker', 'list')
    local worker, list = held[1] or '', held[2] or ''
    if worker ~= '' and redis.call('ZSCORE', KEYS[1], id) then
        replies[#replies + 1] = -1
    elseif list ~= '' and redis.call('LPOS', list, id) then
        replies[#replies + 1] = 0
    else
        if worker ~= '' then
            redis.call('LREM', 'sg:proc:' .. worker, 0, id)
        end
        local q = 'sg:q:' .. model .. ':' .. priority .. ':' .. user
        local ring = 'sg:ring:' .. model .. ':' .. priority
        redis.call('DEL', key)
        redis.call('HSET', key, 'model', model, 'priority', priority, 'user', user, 'list', q, 'at', ms)
        redis.call(ARGV[1] == 'front' and 'RPUSH' or 'LPUSH', q, id)
        redis.call('HINCRBY', 'sg:count:' .. model, priority, 1)
        if not redis.call('LPOS', ring, user) then
            redis.call('LPUSH', ring, user)
        end
        pushed[model] = (pushed[model] or 0) + 1
        replies[#replies + 1] = 1
    end
end

for model, n in pairs(pushed) do
    local wake = 'sg:wake:' .. model
    for _ = 1, math.min(n, 64) do
        redis.call('LPUSH', wake, '1')
    end
    redis.call('LTRIM', wake, 0, 63)
end
return replies
