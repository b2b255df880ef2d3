-- Where jobs stand that were just put at the back of their lists, by the same count as position.lua, but without a
-- search through the lists: what was pushed last is the youngest of its list, what was pushed before it the next.
--
-- KEYS     none
-- ARGV     three per job, in the order in which they were pushed: model, priority, user id
-- Reply    array, one integer per job: 0 = next, -1 = not waiting any more
--
-- Only reads sg:q:…, sg:ring:… and sg:count:….
local replies, younger, above, others = {}, {}, {}, {}

for i = #ARGV - 2, 1, -3 do
    local model, priority, user = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local place = model .. ':' .. priority
    local list = 'sg:q:' .. place .. ':' .. user
    local seen = younger[list] or 0
    younger[list] = seen + 1

    if not above[place] then
        local higher, n = {}, 0
        for p = tonumber(priority) + 1, 10 do
            higher[#higher + 1] = p
        end
        if #higher > 0 then
            for _, count in ipairs(redis.call('HMGET', 'sg:count:' .. model, unpack(higher))) do
                n = n + math.max(0, tonumber(count or 0) or 0)
            end
        end
        above[place] = n
        others[place] = {}
        for _, who in ipairs(redis.call('LRANGE', 'sg:ring:' .. place, 0, 999)) do
            table.insert(others[place], { who, redis.call('LLEN', 'sg:q:' .. place .. ':' .. who) })
        end
    end

    local depth, turn_passed = -1, false
    for _, other in ipairs(others[place]) do
        if other[1] == user then
            depth = other[2] - 1 - seen
        end
    end
    local ahead = depth
    if depth >= 0 then
        ahead = ahead + above[place]
        for k = #others[place], 1, -1 do
            local other = others[place][k]
            if other[1] == user then
                turn_passed = true
            else
                ahead = ahead + math.min(other[2], turn_passed and depth or depth + 1)
            end
        end
    end
    replies[(i + 2) / 3] = ahead
end
return replies
