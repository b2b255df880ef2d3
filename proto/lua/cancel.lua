-- Asks the workers that hold jobs to stop. Told twice: by message, at once, and by a mark that the worker's next
-- heartbeat brings back, in case the message was lost.
--
-- KEYS     sg:job:<id>, one for each job
-- ARGV     job ids, in the same order
-- Reply    number of times that a worker heard a message
local heard = 0
for i = 1, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 1 then
        redis.call('HSET', KEYS[i], 'cancel', '1')
    end
    heard = heard + redis.call('PUBLISH', 'sg:cancel', ARGV[i])
end
return heard
