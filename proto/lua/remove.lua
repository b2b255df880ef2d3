-- Takes waiting jobs out of their lists (they were cancelled). A job that a worker holds is left alone.
--
-- KEYS     none
-- ARGV     four per job: id, model, priority, user id
-- Reply    number of jobs removed
--
-- Touches sg:waiting:<model>:<priority>, sg:q:<model>:<priority>:<user>, sg:turns:<model>.
local removed = 0
for i = 1, #ARGV, 4 do
    local entry = ARGV[i + 2] .. ':' .. ARGV[i + 3]
    local q = 'sg:q:' .. ARGV[i + 1] .. ':' .. entry
    if redis.call('HDEL', 'sg:waiting:' .. ARGV[i + 1] .. ':' .. ARGV[i + 2], ARGV[i]) == 1 then
        -- -1: search from the head, where a job is most likely to be
        removed = removed + redis.call('LREM', q, -1, ARGV[i])
        if redis.call('EXISTS', q) == 0 then
            redis.call('ZREM', 'sg:turns:' .. ARGV[i + 1], entry)
        end
    end
end
return removed
