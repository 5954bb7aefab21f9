-- Puts a due job into a lane, for a worker that serves its provider, unless its record was written since.
-- The next write of the record removes it.
--
-- KEYS
--   record   the record
--   lane     jobs of the provider by the time at which a worker may take them
-- ARGV
--   id       the job
--   version  the version of the record that was read
-- ANSWER
--   now
local record, lane = unpack(KEYS)
local id, version = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local body = redis.call('GET', record)
if body and string.sub(body, 1, #version + 1) == version .. '.' then redis.call('ZADD', lane, 'NX', now, id) end
return now
