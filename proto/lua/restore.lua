-- Makes the claims and leases again of jobs that PostgreSQL holds to be active and that have none (Redis was flushed or
-- lost its last seconds). A worker that lives renews them; otherwise they run out and recovery takes the job like any
-- other. Nobody else makes a claim of a job that Redis forgot, so a worker that has lost it cannot either.
--
-- KEYS     none
-- ARGV[1]  lease, ms
-- ARGV[2…] five per job: id, worker id, tag of the claim, model, priority
-- Reply    number of leases made
--
-- Touches sg:held, sg:lease; reads sg:waiting:<model>:<priority>.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local made, ids = 0, {}
for i = 2, #ARGV, 5 do
    ids[#ids + 1] = ARGV[i]
end
for n, claim in ipairs(#ids > 0 and redis.call('HMGET', 'sg:held', unpack(ids)) or {}) do
    local i = 5 * n - 3
    local id, tag = ids[n], ARGV[i + 2]
    local ours = claim and string.sub(claim, 1, 16) == tag and not redis.call('ZSCORE', 'sg:lease', id)
    if not claim and redis.call('HEXISTS', 'sg:waiting:' .. ARGV[i + 3] .. ':' .. ARGV[i + 4], id) == 0 then
        redis.call('HSET', 'sg:held', id, tag .. ' ' .. ARGV[i + 1])
        ours = true
    end
    if ours then
        redis.call('ZADD', 'sg:lease', ms + tonumber(ARGV[1]), id)
        made = made + 1
    end
end
return made
