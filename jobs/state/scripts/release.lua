-- Takes jobs that a dead worker process held, and forgets the process when it holds none any more.
--
-- KEYS
--   holders     worker processes by the end of their lease
--   held        the jobs that the dead one held
--   due         job ids by the time at which they are due
--   workers     what each worker process says about itself
-- ARGV
--   holder      the dead one
--   limit       how many jobs are taken at most
--   rescue_ms   when a job that was taken is due again
-- ANSWER
--   {now, ids}  the jobs that were taken; none when the lease was renewed after all
local holders, held, due, workers = unpack(KEYS)
local holder, limit, rescue_ms = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local lease_ends_at = redis.call('ZSCORE', holders, holder)
if not lease_ends_at or tonumber(lease_ends_at) > now then return {now, {}} end
local taken = redis.call('SPOP', held, limit)
for _, id in ipairs(taken) do redis.call('ZADD', due, now + rescue_ms, id) end
if redis.call('EXISTS', held) == 0 then
  redis.call('ZREM', holders, holder)
  redis.call('HDEL', workers, holder)
end
return {now, taken}
