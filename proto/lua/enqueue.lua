-- Puts waiting jobs into their lists. Idempotent: a job that waits already, or that a worker holds, is left alone,
-- so the gateway and any number of sweepers may push the same job.
--
-- KEYS     none
-- ARGV[1]  'back' (served after the others of its user) or 'front' (served next)
-- ARGV[2…] four per job: id, model, priority, user id
-- Reply    array, one integer per job: 1 pushed, 0 was waiting, -1 is held by a worker
--
-- Touches sg:q:<model>:<priority>:<user>, sg:waiting:<model>:<priority>, sg:turns:<model>, sg:turn, sg:held, sg:lost,
-- sg:wake:<model>.
local front = ARGV[1] == 'front'
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local replies, pushed, ids = {}, {}, {}
for i = 2, #ARGV, 4 do
    ids[#ids + 1] = ARGV[i]
end
local held = redis.call('HMGET', 'sg:held', unpack(ids))

for n = 1, #ids do
    local id, model, priority, user = ids[n], ARGV[4 * n - 1], ARGV[4 * n], ARGV[4 * n + 1]
    local place = model .. ':' .. priority
    local waiting, q = 'sg:waiting:' .. place, 'sg:q:' .. place .. ':' .. user
    if held[n] and redis.call('ZSCORE', 'sg:lease', id) then
        replies[n] = -1
    elseif redis.call('HSETNX', waiting, id, string.format('%d %s', ms, user)) == 0 and redis.call('LPOS', q, id) then
        replies[n] = 0
    else
        if held[n] then
            -- its lease was lost; should its worker live, it learns that the job is not its own any more
            redis.call('ZADD', 'sg:lost', ms, id .. ' ' .. string.sub(held[n], 1, 16))
            redis.call('HDEL', 'sg:held', id)
        end
        if redis.call(front and 'RPUSH' or 'LPUSH', q, id) == 1 then
            local turn = redis.call('HINCRBY', 'sg:turn', model, 1)
            redis.call('ZADD', 'sg:turns:' .. model, 'NX',
                       string.format('%.0f', (10 - priority) * 1099511627776 + turn), priority .. ':' .. user)
        end
        pushed[model] = (pushed[model] or 0) + 1
        replies[n] = 1
    end
end

local tokens = {}
for model, n in pairs(pushed) do
    local wake = 'sg:wake:' .. model
    for i = 1, math.min(n, 64) - redis.call('LLEN', wake) do
        tokens[i] = '1'
    end
    if #tokens > 0 then
        redis.call('LPUSH', wake, unpack(tokens))
        tokens = {}
    end
end
return replies
