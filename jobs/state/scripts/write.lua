-- Writes a record if it still has the expected version, moves the job between the sets, and publishes the change.
--
-- KEYS
--   record             the record
--   due                job ids by the time at which they are due
--   lane               queued jobs of the provider by the time at which a worker may take them
--   old_index          job ids in the status before, by creation
--   new_index          job ids in the status after
--   old_held           jobs of the holder before
--   new_held           jobs of the holder after
--   unknown            jobs with an attempt whose outcome is unknown, by creation
--   queue              the list of the broker that the message is pushed to
--   changed            the channel of the job's changes
--   holders            worker processes by the end of their lease
-- ARGV
--   id                 the job
--   version            the version that is expected
--   body               the new record
--   due_at             when the job is due; empty: never
--   lane_at            when a worker may take it from its lane; empty: never
--   created_at         when it was created
--   retention_seconds  how long the record is kept; empty: for ever
--   is_unknown         '1' adds the job to `unknown`, '0' removes it; empty changes nothing
--   message            the message; empty without one
--   holder             the holder after; empty without one
--   status             the status after
--   lease_ms           how long a lease lasts
-- ANSWER
--   {1, now, ''}       the record was written
--   {0, now, body}     it has another version: the record as it is, empty when there is none
local record, due, lane, old_index, new_index, old_held, new_held, unknown, queue, changed, holders = unpack(KEYS)
local id, version, body, due_at, lane_at, created_at, retention_seconds, is_unknown, message, holder, status, lease_ms = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local old = redis.call('GET', record)
if not old or string.sub(old, 1, #version + 1) ~= version .. '.' then return {0, now, old or ''} end
if retention_seconds ~= '' then redis.call('SET', record, body, 'EX', retention_seconds) else redis.call('SET', record, body) end
if due_at ~= '' then redis.call('ZADD', due, due_at, id) else redis.call('ZREM', due, id) end
if lane_at ~= '' then redis.call('ZADD', lane, lane_at, id) else redis.call('ZREM', lane, id) end
if old_held ~= new_held then
  redis.call('SREM', old_held, id)
  if holder ~= '' then
    redis.call('SADD', new_held, id)
    -- A worker whose lease ran out may still claim; with a new lease it is found if it dies now.
    redis.call('ZADD', holders, 'NX', now + lease_ms, holder)
  end
end
if is_unknown == '1' then redis.call('ZADD', unknown, created_at, id) elseif is_unknown == '0' then redis.call('ZREM', unknown, id) end
if old_index ~= new_index then
  redis.call('ZREM', old_index, id)
  redis.call('ZADD', new_index, created_at, id)
end
if message ~= '' then redis.call('LPUSH', queue, message) end
redis.call('PUBLISH', changed, status)
return {1, now, ''}
