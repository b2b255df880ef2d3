-- Tells the state of circuit breakers. Changes nothing.
--
-- KEYS     none
-- ARGV[1]  window, ms   ARGV[2…] models
-- Reply    array of eight per model: state ('closed', 'open', 'half_open'), failed runs and runs in the window, times
--          opened, runs that succeeded and that failed in all, ms until a probe may run, id of the probe or ''
--
-- Reads sg:open, sg:breaker:<model>, sg:outcomes:<model>, sg:lease.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local reply = {}
for i = 2, #ARGV do
    local b = redis.call('HMGET', 'sg:breaker:' .. ARGV[i], 'open_until', 'opened', 'succeeded', 'failed', 'probe')
    local state, left, probe = 'closed', 0, ''
    if redis.call('SISMEMBER', 'sg:open', ARGV[i]) == 1 then
        left = math.max(0, tonumber(b[1] or 0) - ms)
        state = left > 0 and 'open' or 'half_open'
        if b[5] and b[5] ~= '' and redis.call('ZSCORE', 'sg:lease', b[5]) then
            probe = b[5]
        end
    end
    local runs, failed = 0, 0
    for _, outcome in ipairs(redis.call('ZRANGEBYSCORE', 'sg:outcomes:' .. ARGV[i], ms - tonumber(ARGV[1]), '+inf')) do
        runs = runs + 1
        failed = failed + (string.sub(outcome, -1) == '0' and 1 or 0)
    end
    for _, v in ipairs({state, failed, runs, tonumber(b[2] or 0), tonumber(b[3] or 0), tonumber(b[4] or 0), left, probe}) do
        reply[#reply + 1] = v
    end
end
return reply
