-- Where jobs stand that were just put at the back of their lists, by the same count as position.lua, but without a
-- search through the lists: what was pushed last is the youngest of its list, what was pushed before it the next.
--
-- KEYS     none
-- ARGV     three per job, in the order in which they were pushed: model, priority, user id
-- Reply    array, one integer per job: 0 = next, -1 = not waiting any more
--
-- Reads sg:q:*, sg:turns:<model>, sg:waiting:<model>:*.
local replies, younger, above, others = {}, {}, {}, {}

for i = #ARGV - 2, 1, -3 do
    local model, priority, user = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local place = model .. ':' .. priority
    local list = 'sg:q:' .. place .. ':' .. user
    local seen = younger[list] or 0
    younger[list] = seen + 1

    if not above[place] then
        local turns, band, n = 'sg:turns:' .. model, 1099511627776, 0
        local first = redis.call('ZRANGE', turns, 0, 0)[1]
        for p = priority + 1, first and tonumber(string.match(first, '^%d+')) or 10 do
            n = n + redis.call('HLEN', 'sg:waiting:' .. model .. ':' .. p)
        end
        above[place] = n
        others[place] = {}
        for _, entry in ipairs(redis.call('ZRANGEBYSCORE', turns, string.format('%.0f', (10 - priority) * band),
                                          string.format('(%.0f', (11 - priority) * band), 'LIMIT', 0, 1000)) do
            local who = string.match(entry, ':(.*)$')
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
        for _, other in ipairs(others[place]) do
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
