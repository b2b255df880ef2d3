-- Moves the jobs that are next from their lists to the worker's processing list and sets their leases, in one step.
--
-- KEYS[1]  sg:proc:<worker>     KEYS[2]  sg:procs     KEYS[3]  sg:lease
-- ARGV[1]  worker id            ARGV[2]  lease, ms
-- ARGV[3]  ageing: from which wait on, ms             ARGV[4]  ageing: every how many claims of a model
-- ARGV[5]  at most so many jobs
-- ARGV[6…] models that the worker runs
-- Reply    nil, or four for each job: job id, model, priority, user id
--
-- Which is next: the greatest priority; inside it the models' older head; inside a model and priority the users take
-- turns (sg:ring:<model>:<priority>, next at the right end), and each user's jobs go first in, first out. Every
-- ARGV[4]th claim serves the oldest of all heads instead, if it has waited for ARGV[3] ms: nothing starves. Several jobs
-- are chosen one after the other by the same rules, as if they were claimed one by one.
--
-- Left out: paused models (sg:paused), and those whose circuit breaker (sg:breaker:<model>) is open, or half open with a
-- probe under way. The first claim of a half-open model is its probe, for as long as it has a lease.
--
-- Touches sg:q:*, sg:ring:*, sg:count:<model>, sg:tick, sg:job:<id>, sg:wake:<model>, sg:breaker:<model>.
local worker, lease, age, every = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)

-- The models that may run: model names, and which of them are half open.
local models, half_open = {}, {}
for i = 6, #ARGV do
    local model = ARGV[i]
    local b = redis.call('HMGET', 'sg:breaker:' .. model, 'state', 'open_until', 'probe')
    local open = b[1] == 'open'
    if redis.call('SISMEMBER', 'sg:paused', model) == 1 or
       (open and (ms < tonumber(b[2] or 0) or (b[3] and b[3] ~= '' and redis.call('ZSCORE', KEYS[3], b[3])))) then
        redis.call('DEL', 'sg:wake:' .. model) -- nobody need wake up for it
    else
        models[#models + 1] = model
        half_open[model] = open
    end
end

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

local function next_job()
    local best
    for priority = 10, 1, -1 do
        for _, model in ipairs(models) do
            best = older(best, head(model, priority))
        end
        if best then
            break
        end
    end
    if best and redis.call('HINCRBY', 'sg:tick', best.model, 1) % every == 0 then
        local oldest
        for priority = 10, 1, -1 do
            for _, model in ipairs(models) do
                oldest = older(oldest, head(model, priority))
            end
        end
        if oldest.at <= ms - age then
            best = oldest
        end
    end
    return best
end

local function take(job)
    redis.call('RPOP', job.q)
    redis.call('RPOP', job.ring)
    if redis.call('EXISTS', job.q) == 1 then
        redis.call('LPUSH', job.ring, job.user)
    end
    redis.call('HINCRBY', 'sg:count:' .. job.model, job.priority, -1)
    redis.call('LPUSH', KEYS[1], job.id)
    redis.call('SADD', KEYS[2], worker)
    redis.call('ZADD', KEYS[3], ms + lease, job.id)
    local key = 'sg:job:' .. job.id
    redis.call('DEL', key)
    redis.call('HSET', key, 'model', job.model, 'priority', job.priority, 'user', job.user, 'worker', worker)
    redis.call('EXPIRE', key, 86400)
    if half_open[job.model] then
        redis.call('HSET', 'sg:breaker:' .. job.model, 'probe', job.id)
        for i, model in ipairs(models) do
            if model == job.model then
                table.remove(models, i)
                break
            end
        end
    end
end

local reply, touched = {}, {}
for _ = 1, tonumber(ARGV[5]) do
    local job = next_job()
    if not job then
        for _, model in ipairs(models) do
            redis.call('DEL', 'sg:wake:' .. model, 'sg:count:' .. model)
        end
        break
    end
    take(job)
    touched[job.model] = true
    for _, v in ipairs({job.id, job.model, job.priority, job.user}) do
        reply[#reply + 1] = v
    end
end
if #reply == 0 then
    return false
end

-- Pass the wake-up on: a token stays as long as the model has waiting jobs, and goes with the last of them.
for model in pairs(touched) do
    local wake, more = 'sg:wake:' .. model, false
    for priority = 10, 1, -1 do
        if redis.call('EXISTS', 'sg:ring:' .. model .. ':' .. priority) == 1 then
            more = true
            break
        end
    end
    if not more then
        redis.call('DEL', wake, 'sg:count:' .. model)
    elseif half_open[model] then
        redis.call('DEL', wake) -- one job was let through; the others wait for how it ends
    elseif redis.call('EXISTS', wake) == 0 then
        redis.call('LPUSH', wake, '1')
    end
end
return reply
