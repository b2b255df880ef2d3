-- Moves the job that is next from its list to the worker's processing list and sets its lease, in one step.
--
-- KEYS[1]  sg:proc:<worker>     KEYS[2]  sg:procs     KEYS[3]  sg:lease
-- ARGV[1]  worker id            ARGV[2]  lease, ms
-- ARGV[3]  ageing: from which wait on, ms             ARGV[4]  ageing: every how many claims of a model
-- ARGV[5…] models that the worker runs
-- Reply    nil, or {job id, model, priority, user id}
--
-- Which is next: the greatest priority; inside it the models' older head; inside a model and priority the users take
-- turns (sg:ring:<model>:<priority>, next at the right end), and each user's jobs go first in, first out. Every
-- ARGV[4]th claim serves the oldest of all heads instead, if it has waited for ARGV[3] ms: nothing starves.
--
-- Touches sg:q:*, sg:ring:*, sg:count:<model>, sg:tick, sg:job:<id>, sg:wake:<model>.
local worker, lease, age, every = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)

-- The job at the head of a model's priority; users whose lists are gone leave the ring.
local function head(model, priority)
    local ring = 'sg:ring:' .. model .. ':' .. priority
    while true do
        local user = redis.call('LINDEX', ring, -1)
        if not user then
            return nil
        end
        local q = 'sg:q:' .. model .. ':' .. priority .. ':' .. user
        local id = redis.call('LINDEX', q, -1)
        if id then
            local at = tonumber(redis.call('HGET', 'sg:job:' .. id, 'at') or 0) or 0
            return {id = id, model = model, priority = priority, user = user, q = q, ring = ring, at = at}
        end
        redis.call('RPOP', ring)
    end
end

local function older(a, b)
    if not a or (b and b.at < a.at) then
        return b
    end
    return a
end

local best
for priority = 10, 1, -1 do
    for i = 5, #ARGV do
        best = older(best, head(ARGV[i], priority))
    end
    if best then
        break
    end
end
if not best then
    for i = 5, #ARGV do
        redis.call('DEL', 'sg:wake:' .. ARGV[i], 'sg:count:' .. ARGV[i])
    end
    return false
end

if redis.call('HINCRBY', 'sg:tick', best.model, 1) % every == 0 then
    local oldest
    for priority = 10, 1, -1 do
        for i = 5, #ARGV do
            oldest = older(oldest, head(ARGV[i], priority))
        end
    end
    if oldest.at <= ms - age then
        best = oldest
    end
end

redis.call('RPOP', best.q)
redis.call('RPOP', best.ring)
if redis.call('EXISTS', best.q) == 1 then
    redis.call('LPUSH', best.ring, best.user)
end
redis.call('HINCRBY', 'sg:count:' .. best.model, best.priority, -1)

redis.call('LPUSH', KEYS[1], best.id)
redis.call('SADD', KEYS[2], worker)
redis.call('ZADD', KEYS[3], ms + lease, best.id)
local key = 'sg:job:' .. best.id
redis.call('DEL', key)
redis.call('HSET', key, 'model', best.model, 'priority', best.priority, 'user', best.user, 'worker', worker)
redis.call('EXPIRE', key, 86400)

-- Pass the wake-up on: a token stays as long as the model has waiting jobs, and goes with the last of them.
local wake, more = 'sg:wake:' .. best.model, false
for priority = 10, 1, -1 do
    if redis.call('EXISTS', 'sg:ring:' .. best.model .. ':' .. priority) == 1 then
        more = true
        break
    end
end
if not more then
    redis.call('DEL', wake, 'sg:count:' .. best.model)
elseif redis.call('EXISTS', wake) == 0 then
    redis.call('LPUSH', wake, '1')
end
return {best.id, best.model, best.priority, best.user}
