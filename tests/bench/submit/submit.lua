-- wrk: each request asks for another image's segmentation, because an image has one unfinished job at most.
-- wrk … -- TOKEN FIRST THREADS [RATE]: thread t asks for the images FIRST + t, FIRST + t + THREADS, …
-- With a RATE (requests per second and thread) a request leaves when its time has come, at random times of that mean
-- rate, as long as a connection is free; without, each connection sends as soon as it has its answer.
local ffi = require("ffi")
ffi.cdef [[
    typedef struct { long sec, nsec; } spheroseg_time_t;
    int clock_gettime(int clock, spheroseg_time_t *out);
]]
local time = ffi.new("spheroseg_time_t[1]")
local count = 0

local function now()
    ffi.C.clock_gettime(1, time)
    return tonumber(time[0].sec) + tonumber(time[0].nsec) / 1e9
end

function setup(thread)
    thread:set("index", count)
    count = count + 1
end

function init(args)
    token, number, step = args[1], tonumber(args[2]) + index, tonumber(args[3])
    rate = tonumber(args[4] or 0)
    if rate > 0 then
        math.randomseed(number)
        due = now()
        delay = paced -- wrk asks for a delay in front of each request when there is such a function
    end
    headers = {["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json"}
end

-- Milliseconds until the next request is due; rounded up or down at random, so that their mean is right.
function paced()
    due = due - math.log(1 - math.random()) / rate
    return math.max(0, math.floor((due - now()) * 1000 + math.random()))
end

function request()
    local path = string.format("/api/images/00000000-0000-4000-a000-%012d/segmentation", number)
    number = number + step
    return wrk.format("POST", path, headers, '{"priority":5}')
end

function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format('\n{"requests":%d,"seconds":%.6f,"p50Us":%d,"p90Us":%d,"p99Us":%d,"maxUs":%d,' ..
        '"socketErrors":%d,"badStatus":%d}\n', summary.requests, summary.duration / 1e6, latency:percentile(50),
        latency:percentile(90), latency:percentile(99), latency.max, e.connect + e.read + e.write + e.timeout, e.status))
end
