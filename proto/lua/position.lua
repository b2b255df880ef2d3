-- How many jobs run before this one, if nothing new comes: all of greater priority, and inside its own priority one of
-- each other user for each turn until its own. Ageing is left out.
--
-- KEYS[1]  sg:job:<id>
-- ARGV[1]  job id
-- Reply    0 = next, -1 = not waiting
local job = redis.call('HMGET', KEYS[1], 'list', 'model', 'priority', 'user')
if not job[1] or job[1] == '' then
    return -1
end
local depth = redis.call('LPOS', job[1], ARGV[1], 'RANK', -1)
if not depth then
    return -1
end
-- LPOS counts from the left whatever the rank; the head is at the right end
depth = redis.call('LLEN', job[1]) - 1 - depth

local ahead = depth
for priority = tonumber(job[3]) + 1, 10 do
    ahead = ahead + math.max(0, tonumber(redis.call('HGET', 'sg:count:' .. job[2], priority) or 0))
end
local turn_passed = false
local ring = redis.call('LRANGE', 'sg:ring:' .. job[2] .. ':' .. job[3], 0, 999)
for i = #ring, 1, -1 do
    if ring[i] == job[4] then
        turn_passed = true
    else
        local n = redis.call('LLEN', 'sg:q:' .. job[2] .. ':' .. job[3] .. ':' .. ring[i])
        -- users before us in the ring take one turn more than those after us
        ahead = ahead + math.min(n, turn_passed and depth or depth + 1)
    end
end
return ahead
