-- Takes a waiting job out of its list (it was cancelled). A job that a worker holds is left alone.
--
-- KEYS[1]  sg:job:<id>
-- ARGV[1]  job id
-- Reply    1 removed, 0 was not waiting
--
-- Touches sg:q:*, sg:ring:*, sg:count:<model>.
local job = redis.call('HMGET', KEYS[1], 'list', 'model', 'priority', 'user')
local list = job[1]
if not list or list == '' then
    return 0
end
redis.call('DEL', KEYS[1])
-- -1: search from the head, where a job is most likely to be
local n = redis.call('LREM', list, -1, ARGV[1])
if n > 0 then
    redis.call('HINCRBY', 'sg:count:' .. job[2], job[3], -n)
end
if redis.call('EXISTS', list) == 0 then
    redis.call('LREM', 'sg:ring:' .. job[2] .. ':' .. job[3], 0, job[4])
end
return n
