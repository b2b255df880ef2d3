-- Ends claims: the jobs leave sg:held and their leases are dropped. With 'front' or 'back' they wait again in the same
-- step (a hand-back); with 'drop' they are gone from Redis. Messages are published first, also in the same step, so that
-- nobody can die between the news and the end of the claim, after which nothing would tell it again.
--
-- KEYS     none
-- ARGV[1]  'drop', 'front' or 'back'
-- ARGV[2]  number of messages, then two for each: channel, message
-- then     five for each job: job id, tag of the claim, model, priority, user id (the last three unused with 'drop').
--          With 'front' the last job becomes the first
-- Reply    number of claims ended; a claim that is no longer held, or whose job has another by now, is left alone, but
--          a job that nobody holds and that waits nowhere waits again, too, unless 'drop'
--
-- Touches sg:held, sg:lease, sg:wake:<model>, sg:open and, unless 'drop', what enqueue.lua touches.
local how, at = ARGV[1], 2 + 2 * ARGV[2]
for i = 3, at, 2 do
    redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local ids, free, ended, woken = {}, {}, 0, {}
for i = at + 1, #ARGV, 5 do
    ids[#ids + 1] = ARGV[i]
end
local open = redis.call('EXISTS', 'sg:open') == 1

for n, claim in ipairs(#ids > 0 and redis.call('HMGET', 'sg:held', unpack(ids)) or {}) do
    local i = at + 5 * n - 4
    local id, model, priority, user = ids[n], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
    if not claim or string.sub(claim, 1, 16) == ARGV[i + 1] then
        free[#free + 1] = id
        ended = ended + (claim and 1 or 0)
        if how ~= 'drop' then
            local place = model .. ':' .. priority
            if redis.call('HSETNX', 'sg:waiting:' .. place, id, string.format('%d %s', ms, user)) == 1 then
                if redis.call(how == 'front' and 'RPUSH' or 'LPUSH', 'sg:q:' .. place .. ':' .. user, id) == 1 then
                    local turn = redis.call('HINCRBY', 'sg:turn', model, 1)
                    redis.call('ZADD', 'sg:turns:' .. model, 'NX',
                               string.format('%.0f', (10 - priority) * 1099511627776 + turn), priority .. ':' .. user)
                end
                woken[model] = true
            end
        end
        -- a probe that ended without an outcome makes room for the next
        if open and model ~= '' and redis.call('HGET', 'sg:breaker:' .. model, 'probe') == id then
            woken[model] = true
        end
    end
end
if #free > 0 then
    redis.call('HDEL', 'sg:held', unpack(free))
    redis.call('ZREM', 'sg:lease', unpack(free))
end
for model in pairs(woken) do
    if redis.call('LLEN', 'sg:wake:' .. model) < 64 then
        redis.call('LPUSH', 'sg:wake:' .. model, '1')
    end
end
return ended
