-- Notes how a run of a model ended and moves its circuit breaker, which all workers share.
--
--   closed ──failures ≥ threshold of at least so many runs in the window──▶ open
--   open ──its time passed──▶ half open (by the clock alone; claim.lua then lets one job, the probe, through)
--   half open ──the probe succeeds──▶ closed, with an empty window      half open ──the probe fails──▶ open
--
-- Runs that began before it opened are counted, but only the probe moves a half-open breaker. A probe that ends without
-- an outcome (cancelled, damaged image, worker lost) gives its lease up, and with it the place of the probe.
--
-- KEYS[1]  sg:breaker:<model>   KEYS[2]  sg:outcomes:<model>
-- ARGV[1]  model   ARGV[2]  job id   ARGV[3]  '1' succeeded, '0' failed   ARGV[4]  threshold, percent
-- ARGV[5]  fewer runs do not open it   ARGV[6]  window, ms   ARGV[7]  open for, ms   ARGV[8]  outcomes kept at most
-- Reply    'closed', 'opened' (by this outcome), 'reopened', 'open', 'half_open' or 'recovered' (closed by this outcome)
--
-- Touches sg:open (the models whose breaker is not closed), sg:wake:<model>; reads sg:turns:<model>.
local model, ok = ARGV[1], ARGV[3] == '1'
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local b = redis.call('HMGET', KEYS[1], 'open_until', 'probe')
local open = redis.call('SISMEMBER', 'sg:open', model) == 1

redis.call('HINCRBY', KEYS[1], ok and 'succeeded' or 'failed', 1)
local n = redis.call('HINCRBY', KEYS[1], 'runs', 1)
redis.call('EXPIRE', KEYS[1], 86400)
redis.call('ZADD', KEYS[2], ms, string.format('%d', n) .. (ok and ':1' or ':0'))
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ms - tonumber(ARGV[6]) - 1)
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -tonumber(ARGV[8]) - 1)
redis.call('PEXPIRE', KEYS[2], ARGV[6])

local function open_it()
    redis.call('SADD', 'sg:open', model)
    redis.call('HSET', KEYS[1], 'open_until', string.format('%d', ms + tonumber(ARGV[7])), 'probe', '')
    redis.call('HINCRBY', KEYS[1], 'opened', 1)
end

if open then
    if ms < tonumber(b[1] or 0) then
        return 'open'
    end
    if b[2] ~= ARGV[2] then
        return 'half_open'
    end
    if not ok then
        open_it()
        return 'reopened'
    end
    redis.call('SREM', 'sg:open', model)
    redis.call('HSET', KEYS[1], 'probe', '')
    redis.call('DEL', KEYS[2])
    if redis.call('EXISTS', 'sg:turns:' .. model) == 1 and redis.call('LLEN', 'sg:wake:' .. model) < 64 then
        redis.call('LPUSH', 'sg:wake:' .. model, '1') -- its claim passes the token on to the other workers
    end
    return 'recovered'
end

if not ok then
    local runs, failed = 0, 0
    for _, outcome in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
        runs = runs + 1
        failed = failed + (string.sub(outcome, -1) == '0' and 1 or 0)
    end
    if runs >= tonumber(ARGV[5]) and 100 * failed >= tonumber(ARGV[4]) * runs then
        open_it()
        return 'opened'
    end
end
return 'closed'
