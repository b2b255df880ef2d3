-- Ends claims of a worker and gives it the jobs that are next: from their lists to sg:held, with a lease, in one step.
-- What a worker says at the end of a job, lets go of and takes up again is thus one round trip.
--
-- KEYS     none
-- ARGV[1]  worker id            ARGV[2]  tag of the new claims, 16 hex digits     ARGV[3]  lease, ms
-- ARGV[4]  ageing: from which wait on, ms           ARGV[5]  ageing: every how many claims of a model
-- ARGV[6]  at most so many jobs      ARGV[7]  so many of them in any case
-- ARGV[8]  what all of them may cost together if they are more, microseconds of measured work
-- ARGV[9]  number of models that the worker runs, then two for each: model, what one of its jobs costs
-- then     number of messages to publish first, then two for each: channel, message
-- then     two for each claim to end: job id, tag of the claim
-- Reply    four for each job: job id, model, priority, user id. Nothing to do: an integer, ms until the breaker of a model
--          with waiting jobs lets one through, or -1
--
-- Which is next: the greatest priority; inside it the models' older head; inside a model and priority the users take
-- turns (sg:turns:<model>), and each user's jobs go first in, first out. While jobs of lesser priorities wait, every
-- ARGV[5]th claim of a model serves the oldest of all heads instead, if it has waited for ARGV[4] ms: nothing starves.
-- Several jobs are chosen one after the other by the same rules, as if they were claimed one by one; those of one model
-- and priority are moved together, because a call costs much more than what it moves.
--
-- What is claimed ahead (more than ARGV[7]) waits behind other jobs of the same worker, so it is bounded: by its cost, and
-- of one model and priority at least as many stay behind, for others, as are taken ahead. The order of jobs is kept: one
-- that may not be taken ahead ends the claim, whatever stands behind it.
--
-- Left out: paused models (sg:paused), and those whose circuit breaker (sg:open) is open, or half open with a probe under
-- way. The first claim of a half-open model is its probe, for as long as it has a lease.
--
-- Touches sg:q:*, sg:turns:*, sg:turn, sg:waiting:*, sg:tick, sg:held, sg:lease, sg:wake:*, sg:breaker:*.
local worker, tag, lease, age, every = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local left, sure, budget, at = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), 10 + 2 * ARGV[9]
local bounded = sure < left
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)

for i = at + 1, at + 2 * ARGV[at], 2 do
    redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
at = at + 2 * ARGV[at]

if at < #ARGV then
    local ids, mine = {}, {}
    for i = at + 1, #ARGV, 2 do
        ids[#ids + 1] = ARGV[i]
    end
    for i, claim in ipairs(redis.call('HMGET', 'sg:held', unpack(ids))) do
        if claim and string.sub(claim, 1, 16) == ARGV[at + 2 * i] then
            mine[#mine + 1] = ids[i]
        end
    end
    if #mine > 0 then
        redis.call('HDEL', 'sg:held', unpack(mine))
        redis.call('ZREM', 'sg:lease', unpack(mine))
    end
end
if left == 0 then
    return -1
end

-- The models that may run, and which of them are half open.
local models, half_open, hint, cost = {}, {}, -1, {}
local gated = redis.call('EXISTS', 'sg:paused', 'sg:open') > 0
for i = 10, 8 + 2 * ARGV[9], 2 do
    local model, runs = ARGV[i], true
    cost[model] = tonumber(ARGV[i + 1])
    if gated then
        runs = redis.call('SISMEMBER', 'sg:paused', model) == 0
        if runs and redis.call('SISMEMBER', 'sg:open', model) == 1 then
            local b = redis.call('HMGET', 'sg:breaker:' .. model, 'open_until', 'probe')
            local wait = tonumber(b[1] or 0) - ms
            half_open[model] = true
            if wait > 0 then
                runs = false
                if redis.call('EXISTS', 'sg:turns:' .. model) == 1 and (hint < 0 or wait < hint) then
                    hint = wait
                end
            elseif b[2] and b[2] ~= '' and redis.call('ZSCORE', 'sg:lease', b[2]) then
                runs = false
            end
        end
    end
    if runs then
        models[#models + 1] = model
    else
        redis.call('DEL', 'sg:wake:' .. model) -- nobody need wake up for it
    end
end

-- The jobs that are given out: the reply, and what is written down at the end, for all of them at once.
local reply, claims, leases = {}, {}, {}
local holder = tag .. ' ' .. worker
local until_ms = string.format('%d', ms + lease)

local function give(id, model, priority, user)
    local r, c = #reply, #claims
    reply[r + 1], reply[r + 2], reply[r + 3], reply[r + 4] = id, model, priority, user
    claims[c + 1], claims[c + 2] = id, holder
    leases[c + 1], leases[c + 2] = until_ms, id
end

local function write_down()
    redis.call('HSET', 'sg:held', unpack(claims))
    redis.call('ZADD', 'sg:lease', unpack(leases))
end

-- Passes the wake-up on: a token stays as long as the model has waiting jobs, and goes with the last of them.
local function pass_on(model, waits)
    local wake = 'sg:wake:' .. model
    if not waits then
        redis.call('DEL', wake)
    elseif redis.call('EXISTS', wake) == 0 then
        redis.call('LPUSH', wake, '1')
    end
end

-- The short way, which most claims go: one model, and the jobs of one user and priority. What follows does the same.
if not gated and #models == 1 then
    local model = models[1]
    local turns = 'sg:turns:' .. model
    local r = redis.call('ZRANGE', turns, 0, 1)
    local alone = r[1] and not r[2]
    local q, n, length = 'sg:q:' .. model .. ':' .. (r[1] or ''), left, nil
    if alone and bounded then
        length = redis.call('LLEN', q)
        n = math.min(left, math.max(sure, math.floor(budget / cost[model])),
                     sure + math.max(0, math.floor((length - sure) / 2)))
    end
    local ids = alone and redis.call('RPOP', q, n)
    if ids then
        local priority, user = string.match(r[1], '^(%d+):(.*)$')
        local waits = #ids == n and (length or n + redis.call('LLEN', q)) > n
        priority = tonumber(priority)
        for _, id in ipairs(ids) do
            give(id, model, priority, user)
        end
        if not waits then
            redis.call('ZREM', turns, r[1])
        end
        redis.call('HDEL', 'sg:waiting:' .. model .. ':' .. priority, unpack(ids))
        write_down()
        pass_on(model, waits)
        return reply
    end
end

-- The place in line that is next in a model: priority and user; second: the priority of the place behind it. Kept until
-- it changes.
local tops = {}

local function place(model, entry, behind)
    local priority = string.match(entry, '^%d+')
    return {model = model, entry = entry, priority = tonumber(priority), q = 'sg:q:' .. model .. ':' .. entry,
            waiting = 'sg:waiting:' .. model .. ':' .. priority,
            second = behind and tonumber(string.match(behind, '^%d+'))}
end

local function top(model)
    if tops[model] == nil then
        local r = redis.call('ZRANGE', 'sg:turns:' .. model, 0, 1)
        tops[model] = r[1] and place(model, r[1], r[2]) or false
    end
    return tops[model]
end

-- Since when the head of a place waits. Empty lists leave the line: false.
local function since(p)
    if not p.at then
        local id = redis.call('LINDEX', p.q, -1)
        if not id then
            redis.call('ZREM', 'sg:turns:' .. p.model, p.entry)
            tops[p.model] = nil
            return false
        end
        p.at = tonumber(string.match(redis.call('HGET', p.waiting, id) or '0', '^%d+'))
    end
    return p.at
end

-- Of the models' next places that with the greatest priority and, among equals, the older head. rivals: others are equal.
local function best_place()
    local best, rivals = nil, false
    for _, model in ipairs(models) do
        local t = top(model)
        if t and (not best or t.priority > best.priority) then
            best, rivals = t, false
        elseif t and t.priority == best.priority then
            rivals = true
            if not since(best) or not since(t) then
                return best_place()
            end
            if t.at < best.at then
                best = t
            end
        end
    end
    return best, rivals
end

-- Whether something of a lesser priority waits.
local function others_wait(priority)
    for _, model in ipairs(models) do
        local t = top(model)
        if t and not t.last then
            t.last = t.second or t.priority
            if t.last == t.priority and t.second then
                t.last = tonumber(string.match(redis.call('ZRANGE', 'sg:turns:' .. model, -1, -1)[1], '^%d+'))
            end
        end
        if t and t.last < priority then
            return true
        end
    end
    return false
end

-- The oldest of the heads of all priorities and models.
local function oldest_place()
    local oldest
    for _, model in ipairs(models) do
        local band = '-inf'
        while true do
            local r = redis.call('ZRANGEBYSCORE', 'sg:turns:' .. model, band, '+inf', 'LIMIT', 0, 2)
            if not r[1] then
                break
            end
            local p = place(model, r[1], r[2])
            if since(p) then
                band = string.format('%.0f', (11 - p.priority) * 1099511627776)
                if not oldest or p.at < oldest.at then
                    oldest = p
                end
            end
        end
    end
    return oldest
end

local more, spent, ahead = {}, 0, {}

-- How many jobs of the place's model and priority may be taken now: those that are due in any case, and those ahead.
local function allowance(p)
    if not bounded then
        return left
    end
    local first, c = math.max(0, sure - #reply / 4), cost[p.model]
    local waiting = redis.call('HLEN', p.waiting) - first - (ahead[p.waiting] or 0)
    return first + math.max(0, math.min(math.floor((budget - spent - first * c) / c), math.floor(waiting / 2)))
end

-- Notes what was taken.
local function charge(p, n)
    local beyond = math.min(n, #reply / 4 - sure)
    if beyond > 0 then
        ahead[p.waiting] = (ahead[p.waiting] or 0) + beyond
    end
    spent = spent + n * cost[p.model]
end

-- Takes up to n jobs of the place and those that share its model and priority, one of each user by turns.
local function take(p, n)
    local turns, entries = 'sg:turns:' .. p.model, {p.entry}
    if n > 1 and p.second == p.priority then
        entries = redis.call('ZRANGEBYSCORE', turns, '-inf', string.format('(%.0f', (11 - p.priority) * 1099511627776),
                             'LIMIT', 0, n)
    end
    local m, rounds, gone, taken = #entries, {}, {}, {}
    local extra = n % m
    for i, entry in ipairs(entries) do
        local share = (n - extra) / m + (i <= extra and 1 or 0)
        local q = 'sg:q:' .. p.model .. ':' .. entry
        local ids = redis.call('RPOP', q, share) or {}
        rounds[i] = {ids = ids, user = string.match(entry, ':(.*)$')}
        if #ids < share or redis.call('LLEN', q) == 0 then
            gone[#gone + 1] = entry
            rounds[i].gone = true
        end
    end
    for k = 1, math.ceil(n / m) do
        for i = 1, m do
            local id = rounds[i].ids[k]
            if id then
                give(id, p.model, p.priority, rounds[i].user)
                taken[#taken + 1] = id
            end
        end
    end
    if #gone > 0 then
        redis.call('ZREM', turns, unpack(gone))
    end
    if #taken > 0 then
        redis.call('HDEL', p.waiting, unpack(taken))
    end
    -- Who has more goes behind the others of its priority; those served once more than the rest, last.
    local back = m - #gone
    if back > 0 and (m > 1 or p.second == p.priority) then
        local turn, scores = redis.call('HINCRBY', 'sg:turn', p.model, back) - back, {}
        for i = 1, m do
            local k = (extra + i - 1) % m + 1
            if not rounds[k].gone then
                turn = turn + 1
                scores[#scores + 1] = string.format('%.0f', (10 - p.priority) * 1099511627776 + turn)
                scores[#scores + 1] = entries[k]
            end
        end
        redis.call('ZADD', turns, unpack(scores))
    end
    more[p.model] = back > 0 or (m == 1 and p.second ~= nil) or nil
    if more[p.model] == nil then
        more[p.model] = redis.call('EXISTS', turns) == 1
    end
    tops[p.model] = nil
    if half_open[p.model] and #taken > 0 then
        redis.call('HSET', 'sg:breaker:' .. p.model, 'probe', taken[1])
        for i, model in ipairs(models) do
            if model == p.model then
                table.remove(models, i)
                break
            end
        end
    end
    return #taken
end

while left > 0 do
    local p, rivals = best_place()
    if not p then
        break
    end
    local n, ticking = (rivals or half_open[p.model]) and 1 or left, others_wait(p.priority) and p.model
    if ticking then
        local rest = every - (redis.call('HGET', 'sg:tick', ticking) or 0) % every
        if rest == 1 then
            local oldest = oldest_place()
            if oldest and oldest.at <= ms - age then
                p = oldest
            end
            n = 1
        else
            n = math.min(n, rest - 1)
        end
    end
    n = math.min(n, allowance(p))
    if n == 0 then
        break
    end
    local got = take(p, n)
    if ticking and got > 0 then
        redis.call('HINCRBY', 'sg:tick', ticking, got)
    end
    charge(p, got)
    left = left - got
end
if #reply == 0 then
    for _, model in ipairs(models) do
        redis.call('DEL', 'sg:wake:' .. model)
    end
    return hint
end
write_down()
for model, waits in pairs(more) do
    pass_on(model, waits and not half_open[model]) -- of a half-open one, the others wait for how its probe ends
end
return reply
