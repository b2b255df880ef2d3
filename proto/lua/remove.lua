-- Takes waiting jobs out of their lists (they were cancelled). A job that a worker holds is left alone.
--
-- KEYS     sg:job:<id>, one for each job
-- ARGV     job ids, in the same order
-- Reply    number of jobs removed
--
-- Touches sg:q:*, sg:ring:*, sg:count:<model>.
local removed = 0
for i = 1, #KEYS do
    local job = redis.call('HMGET', KEYS[i], 'list', 'model', 'priority', 'user')
    local list = job[1]
    if list and list ~= '' then
        redis.call('DEL', KEYS[i])
        -- -1: search from the head, where a job is most likely to be
        local n = redis.call('LREM', list, -1, ARGV[i])
        if n > 0 then
            redis.call('HINCRBY', 'sg:count:' .. job[2], job[3], -n)
            removed = removed + n
        end
        if redis.call('EXISTS', list) == 0 then
            redis.call('LREM', 'sg:ring:' .. job[2] .. ':' .. job[3], 0, job[4])
        end
    end
end
return removed
