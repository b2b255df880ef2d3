-- Gives a lease to jobs that PostgreSQL holds to be active and that have none (Redis was flushed or lost its last
-- seconds). A worker that lives renews it; otherwise it runs out and recovery takes the job like any other.
--
-- KEYS[1]  sg:lease   KEYS[2]  sg:procs
-- ARGV[1]  lease, ms   ARGV[2…] two per job: id, worker id
-- Reply    number of leases made
--
-- Touches sg:proc:<worker>, sg:job:<id>.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local made = 0

for i = 2, #ARGV, 2 do
    local id, worker = ARGV[i], ARGV[i + 1]
    local key = 'sg:job:' .. id
    local job = redis.call('HMGET', key, 'worker', 'list')
    local holder, list = job[1] or '', job[2] or ''
    if not redis.call('ZSCORE', KEYS[1], id) and list == '' and (holder == '' or holder == worker) then
        redis.call('HSET', key, 'worker', worker)
        redis.call('EXPIRE', key, 86400)
        redis.call('LREM', 'sg:proc:' .. worker, 0, id)
        redis.call('LPUSH', 'sg:proc:' .. worker, id)
        redis.call('SADD', KEYS[2], worker)
        redis.call('ZADD', KEYS[1], ms + tonumber(ARGV[1]), id)
        made = made + 1
    end
end
return made
