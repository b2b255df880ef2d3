-- Renews every lease of one worker and its entry in the registry. A lease that Redis lost (flush, restart) is made
-- again; one that recovery took is reported as lost.
--
-- KEYS[1]  sg:proc:<worker>   KEYS[2]  sg:procs   KEYS[3]  sg:lease   KEYS[4]  sg:workers
-- ARGV[1]  worker id   ARGV[2]  lease, ms   ARGV[3]  JSON object that describes the worker   ARGV[4…] job ids
-- Reply    array, one integer per job: 1 renewed, 0 lost, 2 renewed and a person asked to cancel the job
--
-- Touches sg:job:<id>.
local worker, lease = ARGV[1], tonumber(ARGV[2])
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local replies = {}

for i = 4, #ARGV do
    local id = ARGV[i]
    local key = 'sg:job:' .. id
    local known = redis.call('EXISTS', key) == 1
    if known and redis.call('HGET', key, 'worker') ~= worker then
        replies[#replies + 1] = 0
    else
        if not known then
            redis.call('HSET', key, 'worker', worker)
        end
        redis.call('EXPIRE', key, 86400)
        redis.call('ZADD', KEYS[3], ms + lease, id)
        if not redis.call('LPOS', KEYS[1], id) then
            redis.call('LPUSH', KEYS[1], id)
            redis.call('SADD', KEYS[2], worker)
        end
        replies[#replies + 1] = redis.call('HGET', key, 'cancel') == '1' and 2 or 1
    end
end

-- The worker's own words, with the time of this sign of life by Redis's clock.
local info = string.gsub(ARGV[3], '}%s*$', '')
local comma = string.find(info, '"') and ',' or ''
redis.call('HSET', KEYS[4], worker, info .. comma .. '"seenAt":' .. string.format('%d', ms) .. '}')
return replies
