-- Makes room for an answer in the cache of answers, and a place for it that ends by itself.
--
-- KEYS[1]  sg:cache        sorted set: name -> when it ends, µs
-- KEYS[2]  sg:cache:sizes  hash: name -> bytes; the field "" holds their sum
-- KEYS[3]  sg:cache:<name> the place: a hash, whose field v the caller fills
-- ARGV[1]  name   ARGV[2]  bytes   ARGV[3]  ms to keep it   ARGV[4]  bytes that all may hold
-- Reply    1: the place is there; 0: it is larger than all may be
--
-- What was put first goes first; all are kept equally long, so that is also what ends first. The sum counts what has ended until
-- this script meets it.
local size, most = tonumber(ARGV[2]), tonumber(ARGV[4])
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2] -- in µs, so that two of the same ms keep their order

local function forget(name)
    local bytes = redis.call('HGET', KEYS[2], name)
    if bytes then
        redis.call('HINCRBY', KEYS[2], '', -bytes)
        redis.call('HDEL', KEYS[2], name)
    end
    redis.call('ZREM', KEYS[1], name)
    redis.call('DEL', 'sg:cache:' .. name)
end

forget(ARGV[1])
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, 100)) do
    forget(name)
end
if size > most then
    return 0
end
while tonumber(redis.call('HGET', KEYS[2], '') or 0) + size > most do
    local first = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
    if not first then -- the two do not belong together (any more): begin anew
        redis.call('DEL', KEYS[2])
        break
    end
    forget(first)
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[3] * 1000), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], size)
redis.call('HINCRBY', KEYS[2], '', size)
redis.call('HSET', KEYS[3], 'v', '')
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 1
