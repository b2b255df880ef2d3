-- Notes the progress of a claim, unless the job has another by now. Where Redis forgot the job nothing is noted: only
-- claim.lua and restore.lua name a holder, because they give a lease as well. A holder without a lease, named by a worker
-- that has lost the job meanwhile, would keep restore.lua from the true one's row.
--
-- KEYS     none
-- ARGV[1]  job id   ARGV[2]  tag of the claim   ARGV[3]  sequence number   ARGV[4]  progress, 0…1   ARGV[5]  stage
-- Reply    1 noted (or nothing is known of the job), 0 the job is not this claim's
--
-- Touches sg:held.
local claim = redis.call('HGET', 'sg:held', ARGV[1])
if not claim then
    return 1
end
if string.sub(claim, 1, 16) ~= ARGV[2] then
    return 0
end
claim = string.gsub(claim, ' at=%S*', '')
redis.call('HSET', 'sg:held', ARGV[1], string.format('%s at=%s/%s/%s', claim, ARGV[3], ARGV[4], ARGV[5]))
return 1
