-- Renews the lease of a worker process and takes due jobs, each of which is due again after a while.
--
-- KEYS
--   holders      worker processes by the end of their lease
--   due          job ids by the time at which they are due
--   grace        exists while no worker is taken for dead
--   workers      what each worker process says about itself
--   ticked       when any worker was last heard
-- ARGV
--   holder       the worker process
--   description  what it says about itself, as JSON
--   limit        how many due jobs are taken at most
--   lease_ms     how long a lease lasts
--   sweep_ms     when a job that was taken is due again
--   silence_ms   when no worker was heard for so long, Redis was away and the silent ones may be alive
--   grace_ms     how long no worker is taken for dead after that
-- ANSWER
--   {now, ids of due jobs, living holders, dead holders}
local holders, due, grace, workers, ticked = unpack(KEYS)
local holder, description, limit, lease_ms, sweep_ms, silence_ms, grace_ms = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local last = redis.call('GET', ticked)
redis.call('SET', ticked, now)
if last and now - last > tonumber(silence_ms) then redis.call('SET', grace, '1', 'PX', grace_ms) end
redis.call('ZADD', holders, now + lease_ms, holder)
redis.call('HSET', workers, holder, description)
local taken = redis.call('ZRANGE', due, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
for _, id in ipairs(taken) do redis.call('ZADD', due, now + sweep_ms, id) end
if redis.call('EXISTS', grace) == 1 then return {now, taken, redis.call('ZRANGE', holders, 0, -1), {}} end
local dead = redis.call('ZRANGE', holders, '-inf', now, 'BYSCORE', 'LIMIT', 0, 10)
return {now, taken, redis.call('ZRANGE', holders, '(' .. now, '+inf', 'BYSCORE'), dead}
