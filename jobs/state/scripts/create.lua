-- Creates jobs of one owner and pushes their messages: all of them or none.
--
-- KEYS
--   due            job ids by the time at which they are due
--   idempotency    the ids of the jobs that were created with this idempotency key, and the digest of their request
--   owned          job ids of the owner by creation
-- KEYS of each job
--   record         its record
--   lane           queued jobs of its provider by the time at which a worker may take them
--   index          job ids in its status by creation
--   queue          the list of the broker that its message is pushed to
-- ARGV
--   jobs           how many jobs there are
--   ids            their ids, joined by commas
--   digest         of the request; empty without an idempotency key
--   forgotten      the value of the idempotency key whose jobs are known to be forgotten; it is replaced
--   key_seconds    how long the idempotency key is kept
--   owned_ms       how long the owner's index is kept; empty without an owner
-- ARGV of each job
--   id             its id
--   body           its record
--   due_at         when it is due
--   lane_at        when a worker may take it from its lane
--   created_at     when it was created
--   message        its message; empty without one
-- ANSWER
--   {now, ''}      the jobs were written, now or by the first of two equal calls
--   {now, value}   the idempotency key was used before: '<ids> <digest>'
local due, idempotency, owned = unpack(KEYS, 1, 3)
local jobs, ids, digest, forgotten, key_seconds, owned_ms = unpack(ARGV, 1, 6)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A call that is repeated because its answer was lost must not undo what a worker has written since.
local first_record = unpack(KEYS, 4, 4)
if redis.call('EXISTS', first_record) == 1 then return {now, ''} end
if digest ~= '' then
  local used = redis.call('GET', idempotency)
  if used and used ~= forgotten then return {now, used} end
  redis.call('SET', idempotency, ids .. ' ' .. digest, 'EX', key_seconds)
end
for i = 0, jobs - 1 do
  local record, lane, index, queue = unpack(KEYS, 4 + 4 * i, 7 + 4 * i)
  local id, body, due_at, lane_at, created_at, message = unpack(ARGV, 7 + 6 * i, 12 + 6 * i)
  redis.call('SET', record, body)
  redis.call('ZADD', due, due_at, id)
  redis.call('ZADD', lane, lane_at, id)
  redis.call('ZADD', index, created_at, id)
  if message ~= '' then redis.call('LPUSH', queue, message) end
  if owned_ms ~= '' then redis.call('ZADD', owned, created_at, id) end
end
if owned_ms ~= '' then
  redis.call('ZREMRANGEBYSCORE', owned, '-inf', now - owned_ms)
  redis.call('PEXPIRE', owned, owned_ms)
end
return {now, ''}
