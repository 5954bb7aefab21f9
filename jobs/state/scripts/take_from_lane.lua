-- Takes queued jobs from a lane; one that nobody claims may be taken again after a while.
--
-- KEYS
--   lane        queued jobs of a provider by the time at which a worker may take them
-- ARGV
--   limit       how many are taken at most
--   sweep_ms    when one that was taken may be taken again
-- ANSWER
--   {now, ids}
local lane = unpack(KEYS)
local limit, sweep_ms = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local taken = redis.call('ZRANGE', lane, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
for _, id in ipairs(taken) do redis.call('ZADD', lane, now + sweep_ms, id) end
return {now, taken}
