-- Finds claims whose lease has run out and gives each to the sweeper, with a lease of its own, in one step: an id is at
-- every moment in exactly one place, so a sweeper that dies half-way loses nothing. The claims themselves (sg:held) are
-- read as soon as they are not as many as the leases: a claim without a lease is found like one whose lease has run out.
-- (A lease without a claim would hide one; it goes when it has run out, and the numbers differ from then on.)
--
-- KEYS     none
-- ARGV[1]  sweeper id   ARGV[2]  tag of the sweeper's claims   ARGV[3]  sweeper's lease, ms
-- ARGV[4]  at most so many jobs   ARGV[5]  workers' silence, ms
-- Reply    flat array: job id, worker that lost it, tag of the claim that was lost, …
--
-- Touches sg:held, sg:lease, sg:lost; drops registry entries of workers silent for ARGV[5] ms (sg:workers).
local me, tag, lease, limit = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local found = {}

local function take(id, claim)
    local held, worker = string.match(claim, '^(%S+) (%S+)')
    local lost, loser = string.match(claim, ' lost=(%x+)/(%S+)')
    redis.call('HSET', 'sg:held', id, string.format('%s %s lost=%s/%s', tag, me, lost or held, loser or worker))
    redis.call('ZADD', 'sg:lease', ms + lease, id)
    redis.call('ZADD', 'sg:lost', ms, id .. ' ' .. held)
    local n = #found
    found[n + 1], found[n + 2], found[n + 3] = id, loser or worker, lost or held
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'sg:lease', '-inf', ms, 'LIMIT', 0, limit)) do
    local claim = redis.call('HGET', 'sg:held', id)
    if claim then
        take(id, claim)
    else
        redis.call('ZREM', 'sg:lease', id)
    end
end
if redis.call('HLEN', 'sg:held') ~= redis.call('ZCARD', 'sg:lease') then
    local claims = redis.call('HGETALL', 'sg:held')
    for i = 1, #claims, 2 do
        if #found < 3 * limit and not redis.call('ZSCORE', 'sg:lease', claims[i]) then
            take(claims[i], claims[i + 1])
        end
    end
end

redis.call('ZREMRANGEBYSCORE', 'sg:lost', '-inf', ms - 7200000)
local workers = redis.call('HGETALL', 'sg:workers')
for i = 1, #workers, 2 do
    local seen = tonumber(string.match(workers[i + 1], '"seenAt":(%d+)') or 0)
    if seen < ms - tonumber(ARGV[5]) then
        redis.call('HDEL', 'sg:workers', workers[i])
    end
end
return found
