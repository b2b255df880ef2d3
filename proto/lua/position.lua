-- How many jobs run before this one, if nothing new comes: all of greater priority, and inside its own priority one of
-- each other user for each turn until its own. Ageing is left out.
--
-- KEYS     none
-- ARGV[1]  job id   ARGV[2]  model   ARGV[3]  priority
-- Reply    0 = next, -1 = not waiting
local id, model, priority = ARGV[1], ARGV[2], tonumber(ARGV[3])
local turns = 'sg:turns:' .. model
local user = string.match(redis.call('HGET', 'sg:waiting:' .. model .. ':' .. priority, id) or '', ' (.*)$')
if not user then
    return -1
end
local q = 'sg:q:' .. model .. ':' .. priority .. ':'
-- The newest are at the left end, and are asked for most often.
local depth = redis.call('LPOS', q .. user, id, 'MAXLEN', 1000) or redis.call('LPOS', q .. user, id, 'RANK', -1)
if not depth then
    return -1
end
depth = redis.call('LLEN', q .. user) - 1 - depth

local ahead = depth
local first = redis.call('ZRANGE', turns, 0, 0)[1]
for p = priority + 1, first and tonumber(string.match(first, '^%d+')) or 10 do
    ahead = ahead + redis.call('HLEN', 'sg:waiting:' .. model .. ':' .. p)
end
local turn_passed = false
local band = 1099511627776
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', turns, string.format('%.0f', (10 - priority) * band),
                                  string.format('(%.0f', (11 - priority) * band), 'LIMIT', 0, 1000)) do
    local other = string.match(entry, ':(.*)$')
    if other == user then
        turn_passed = true
    else
        -- users before us in the line take one turn more than those after us
        ahead = ahead + math.min(redis.call('LLEN', q .. other), turn_passed and depth or depth + 1)
    end
end
return ahead
