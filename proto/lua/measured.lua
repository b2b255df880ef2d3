-- Keeps the moving average of how long a model's jobs take, for the estimates that people see.
--
-- KEYS[1]  sg:seconds
-- ARGV[1]  model   ARGV[2]  seconds that a job took from claim to commit
-- Reply    the new average, as text
--
-- A field holds "<average> <measurements>". The first ten count alike; from then on each new one counts a tenth.
local old, n = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%S+) (%d+)$')
n = math.min(tonumber(n or 0) + 1, 10)
local mean = tonumber(old or 0) + (tonumber(ARGV[2]) - tonumber(old or 0)) / n
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.4f %d', mean, n))
redis.call('EXPIRE', KEYS[1], 604800)
return string.format('%.4f', mean)
