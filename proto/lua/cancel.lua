-- Asks the workers that hold claims to stop. Told twice: by message, at once, and by a mark that the worker's next
-- heartbeat brings back, in case the message was lost. Both name the claim, so that one which comes late, when the job has
-- ended and was started again, stops nobody.
--
-- KEYS     none
-- ARGV     two per claim: job id, tag of the claim
-- Reply    number of times that a worker heard a message
--
-- Touches sg:held.
local heard = 0
for i = 1, #ARGV, 2 do
    local claim = redis.call('HGET', 'sg:held', ARGV[i])
    if claim and string.sub(claim, 1, 16) == ARGV[i + 1] and not string.find(claim, ' cancel', 1, true) then
        redis.call('HSET', 'sg:held', ARGV[i], claim .. ' cancel')
    end
    heard = heard + redis.call('PUBLISH', 'sg:cancel', ARGV[i] .. ' ' .. ARGV[i + 1])
end
return heard
