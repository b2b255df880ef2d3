-- Notes the progress of an active job, unless the job has another holder by now.
--
-- KEYS[1]  sg:job:<id>
-- ARGV[1]  worker id   ARGV[2]  progress, 0…1   ARGV[3]  stage   ARGV[4]  sequence number
-- Reply    1 noted, 0 the job is not this worker's
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HGET', KEYS[1], 'worker') ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'worker', ARGV[1], 'progress', ARGV[2], 'stage', ARGV[3], 'seq', ARGV[4])
redis.call('EXPIRE', KEYS[1], 86400)
return 1
