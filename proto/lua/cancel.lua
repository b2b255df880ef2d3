-- Asks the worker that holds a job to stop. Told twice: by message, at once, and by a mark that the worker's next
-- heartbeat brings back, in case the message was lost.
--
-- KEYS[1]  sg:job:<id>
-- ARGV[1]  job id
-- Reply    number of workers that heard the message
if redis.call('EXISTS', KEYS[1]) == 1 then
    redis.call('HSET', KEYS[1], 'cancel', '1')
end
return redis.call('PUBLISH', 'sg:cancel', ARGV[1])
