-- Renews the leases of one worker's claims and its entry in the registry.
--
-- KEYS     none
-- ARGV[1]  worker id   ARGV[2]  lease, ms   ARGV[3]  JSON object that describes the worker
-- ARGV[4…] two per claim: job id, tag
-- Reply    array, one integer per claim: 1 renewed; 2 renewed, and a person asked to cancel the job; 0 lost, another had or
--          has the job; 3 Redis does not know: it forgot (then restore.lua makes the claim again, from PostgreSQL), or the
--          claim has just ended. Go on, for the commit decides
--
-- Touches sg:held, sg:lease, sg:workers; reads sg:lost.
local worker = ARGV[1]
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local replies, ids, leases = {}, {}, {}
for i = 4, #ARGV, 2 do
    ids[#ids + 1] = ARGV[i]
end
for n, claim in ipairs(#ids > 0 and redis.call('HMGET', 'sg:held', unpack(ids)) or {}) do
    local tag = ARGV[2 * n + 3]
    local holder, rest = string.match(claim or '', '^(%S+ %S+)(.*)$')
    if holder == tag .. ' ' .. worker then
        leases[#leases + 1] = ms + tonumber(ARGV[2])
        leases[#leases + 1] = ids[n]
        replies[n] = string.find(rest, ' cancel', 1, true) and 2 or 1
    else
        replies[n] = redis.call('ZSCORE', 'sg:lost', ids[n] .. ' ' .. tag) and 0 or 3
    end
end
if #leases > 0 then
    redis.call('ZADD', 'sg:lease', unpack(leases))
end

-- The worker's own words, with the time of this sign of life by Redis's clock.
local info = string.gsub(ARGV[3], '}%s*$', '')
local comma = string.find(info, '"') and ',' or ''
redis.call('HSET', 'sg:workers', worker, info .. comma .. '"seenAt":' .. string.format('%d', ms) .. '}')
return replies
