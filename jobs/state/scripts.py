"""What Redis does in one step: the Lua scripts by which a record and the sets beside it never disagree.

Each begins with its KEYS and ARGV by name, and can be repeated: an answer may be lost after the script has run. An argument
that is not wanted is empty, and so is a key's place taken by one that is not touched then. Times are milliseconds of Redis'
clock, and the answer tells `now` by it.
"""

from __future__ import annotations


def _timed(body: str) -> str:
    return "local t = redis.call('TIME')\nlocal now = t[1] * 1000 + math.floor(t[2] / 1000)\n" + body


#: Writes new jobs of one owner and pushes their messages: all or none.
#: Answers {1, now, ''}; or {0, now, '<ids> <digest>'} when the idempotency key was used before.
CREATE = _timed("""
-- KEYS  then of each job: its record, its line, its status' index, the queue of its message
local due, idempotency, owned = unpack(KEYS, 1, 3)
-- ARGV  then of each job: id, record, when it is due, when it may be taken from its line, when it was created, message
local jobs, ids, digest, key_seconds, owned_ms, job_prefix = unpack(ARGV, 1, 6)

-- Repeated because its answer was lost, it must not undo what a worker has written since.
if redis.call('EXISTS', KEYS[4]) == 1 then return {1, now, ''} end
if digest ~= '' then
  local first = redis.call('GET', idempotency)
  -- The key may outlive the record, whose retention began with the job's end: then it is free.
  if first and redis.call('EXISTS', job_prefix .. string.match(first, '^[^ ,]+')) == 1 then return {0, now, first} end
  redis.call('SET', idempotency, ids .. ' ' .. digest, 'EX', key_seconds)
end
for i = 0, jobs - 1 do
  local job, line, index, queue = unpack(KEYS, 4 + 4 * i, 7 + 4 * i)
  local id, record, due_at, lane_at, created_at, message = unpack(ARGV, 7 + 6 * i, 12 + 6 * i)
  redis.call('SET', job, record)
  redis.call('ZADD', due, due_at, id)
  redis.call('ZADD', line, lane_at, id)
  redis.call('ZADD', index, created_at, id)
  if message ~= '' then redis.call('LPUSH', queue, message) end
  if owned_ms ~= '' then redis.call('ZADD', owned, created_at, id) end
end
if owned_ms ~= '' then
  redis.call('ZREMRANGEBYSCORE', owned, '-inf', now - owned_ms)
  redis.call('PEXPIRE', owned, owned_ms)
end
return {1, now, ''}
""")

#: Writes a record if it still has the expected version, and moves the job between the sets.
#: Answers {1, now, ''}; or {0, now, record} with the newer record, empty when there is none.
WRITE = _timed("""
local job, due, line, from, to, held_from, held_to, unknown, queue, channel, holders = unpack(KEYS)
local id, expected, record, due_at, lane_at, created_at, retention_seconds = unpack(ARGV, 1, 7)
-- is_unknown: '1' joins the index of the unknown, '0' leaves it
local is_unknown, message, holder, status, lease_ms = unpack(ARGV, 8, 12)

local old = redis.call('GET', job)
if not old or string.sub(old, 1, #expected + 1) ~= expected .. ' ' then return {0, now, old or ''} end
if retention_seconds ~= '' then redis.call('SET', job, record, 'EX', retention_seconds) else redis.call('SET', job, record) end
if due_at ~= '' then redis.call('ZADD', due, due_at, id) else redis.call('ZREM', due, id) end
if lane_at ~= '' then redis.call('ZADD', line, lane_at, id) else redis.call('ZREM', line, id) end
if held_from ~= held_to then
  redis.call('SREM', held_from, id)
  if holder ~= '' then
    redis.call('SADD', held_to, id)
    -- A worker that was believed dead and forgotten may still claim: should it die now, it must be missed.
    redis.call('ZADD', holders, 'NX', now + lease_ms, holder)
  end
end
if is_unknown == '1' then redis.call('ZADD', unknown, created_at, id) elseif is_unknown == '0' then redis.call('ZREM', unknown, id) end
if from ~= to then
  redis.call('ZREM', from, id)
  redis.call('ZADD', to, created_at, id)
end
if message ~= '' then redis.call('LPUSH', queue, message) end
redis.call('PUBLISH', channel, status)
return {1, now, ''}
""")

#: Renews a worker's lease, makes due at once what dead workers held, and pops what is due, which comes back after a while.
#: Answers {now, ids of due jobs, living holders}.
TICK = _timed("""
local holders, due, grace, workers, ticked = unpack(KEYS)
-- held_prefix: before a holder's id, the key of what it holds; description: of the worker, as JSON
local holder, lease_ms, grace_ms, sweep_ms, limit, held_prefix, description, silence_ms, rescue_ms = unpack(ARGV)

-- When nobody has been heard, Redis was away, and those who were silent may live.
local last = redis.call('GET', ticked)
redis.call('SET', ticked, now)
if last and now - last > tonumber(silence_ms) then redis.call('SET', grace, '1', 'PX', grace_ms) end
redis.call('ZADD', holders, now + lease_ms, holder)
redis.call('HSET', workers, holder, description)
local graced = redis.call('EXISTS', grace) == 1
local rescued = {}
if not graced then
  for _, dead in ipairs(redis.call('ZRANGE', holders, '-inf', now, 'BYSCORE', 'LIMIT', 0, 10)) do
    local held = held_prefix .. dead
    for _, id in ipairs(redis.call('SPOP', held, 500)) do
      redis.call('ZADD', due, now, id)
      rescued[id] = now + rescue_ms
    end
    if redis.call('EXISTS', held) == 0 then
      redis.call('ZREM', holders, dead)
      redis.call('HDEL', workers, dead)
    end
  end
end
local popped = redis.call('ZRANGE', due, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
for _, id in ipairs(popped) do redis.call('ZADD', due, rescued[id] or now + sweep_ms, id) end
local living = redis.call('ZRANGE', holders, graced and '-inf' or now, '+inf', 'BYSCORE')
return {now, popped, living}
""")

#: Takes queued jobs whose time has come from a line; what nobody claims stands there again after a while.
#: Answers {now, ids}.
TAKE = _timed("""
local line = unpack(KEYS)
local limit, sweep_ms = unpack(ARGV)

local ids = redis.call('ZRANGE', line, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
for _, id in ipairs(ids) do redis.call('ZADD', line, now + sweep_ms, id) end
return {now, ids}
""")

#: Puts a job that is due into a line, for a worker that serves its provider; unless its record was written since.
#: Each write of the record takes it out again.
HAND_ON = _timed("""
local job, line = unpack(KEYS)
local id, version = unpack(ARGV)

local old = redis.call('GET', job)
if old and string.sub(old, 1, #version + 1) == version .. ' ' then redis.call('ZADD', line, 'NX', now, id) end
return now
""")
