-- Notes the progress of an active job, unless the job has another holder by now. Where Redis forgot the job nothing is
-- noted: only a claim, a heartbeat or restore.lua may name a holder, because these give a lease as well. A holder without
-- a lease, named by a worker that has lost the job meanwhile, would keep restore.lua from the true one's row.
--
-- KEYS[1]  sg:job:<id>
-- ARGV[1]  worker id   ARGV[2]  progress, 0…1   ARGV[3]  stage   ARGV[4]  sequence number
-- Reply    1 noted (or nothing is known of the job), 0 the job is not this worker's
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 1
end
if redis.call('HGET', KEYS[1], 'worker') ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'progress', ARGV[2], 'stage', ARGV[3], 'seq', ARGV[4])
redis.call('EXPIRE', KEYS[1], 86400)
return 1
