-- wrk: each request asks for another image's segmentation, because an image has one unfinished job at most.
-- wrk … -- TOKEN FIRST THREADS: thread t asks for the images FIRST + t, FIRST + t + THREADS, …
local count = 0

function setup(thread)
    thread:set("index", count)
    count = count + 1
end

function init(args)
    token, number, step = args[1], tonumber(args[2]) + index, tonumber(args[3])
    headers = {["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json"}
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
