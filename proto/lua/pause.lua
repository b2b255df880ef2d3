-- Makes the set of paused models what PostgreSQL says. Idempotent; run after each change, and by every sweep.
--
-- KEYS[1]  sg:paused
-- ARGV     all paused models
-- Reply    number of models that were resumed
--
-- Touches sg:wake:<model> of what is resumed: its waiting workers go on at once.
local wanted, resumed = {}, 0
for i = 1, #ARGV do
    wanted[ARGV[i]] = true
    redis.call('SADD', KEYS[1], ARGV[i])
end
for _, model in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    if not wanted[model] then
        redis.call('SREM', KEYS[1], model)
        redis.call('LPUSH', 'sg:wake:' .. model, '1')
        redis.call('LTRIM', 'sg:wake:' .. model, 0, 63)
        resumed = resumed + 1
    end
end
return resumed
