-- Counts one request against a rate limit (the generic cell rate algorithm).
--
-- KEYS
--   full_at                the time at which the allowance is full again
-- ARGV
--   window_ms              how long a full allowance lasts
--   interval_ms            after how long one request is allowed again
-- ANSWER
--   {wait_ms, full_in_ms}  when the request would be allowed, 0 if it is, and when the allowance is full again
local full_at = unpack(KEYS)
local window_ms, interval_ms = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

local full_after = math.max(tonumber(redis.call('GET', full_at) or 0), now) + interval_ms
local over = full_after - now - window_ms
if over > 0 then return {math.ceil(over), math.ceil(full_after - now - interval_ms)} end
redis.call('SET', full_at, string.format('%.3f', full_after), 'PX', math.ceil(full_after - now))
return {0, math.ceil(full_after - now)}
