-- One change of the table: every condition first, then all writes.
--
-- KEYS  1 meta  2 agency  3 domain  4 fixed  5 log  6 applied  7 confirm
--       8...    the mapping of each agency below that has one, in order
-- ARGV  1 incarnation   2 format        3 change id    4 digest of the change
--       5 mapped, 0: not compared       6 log length   7 ids to remember
--       8 who  9 what  10 reason        11 the records as the log keeps them
--       12 number of agencies  13 of domains  14 of fixed addresses, then
--       per agency:  id, revision it was computed from, mapping's digest or "-", record
--       per domain:  name, record or "" to remove it
--       per fixed:   address, record or ""
--
-- Answers a word and what belongs to it; only OK has written. All answers are text:
-- numbers of Lua are doubles. Records begin with their revision, those of agencies with
-- the mapping's digest after it, so that no JSON is read here.
--
-- A script that fails half-way keeps what it wrote. So the types of all keys are looked
-- at, though the first command on a wrong one would fail by itself, and the log, which
-- may refuse a revision that it has seen, is written first.

-- A write of nothing. A replica, a primary that lost its replicas and a server whose
-- memory or disk is full refuse it, and so the whole script, also where it would only
-- have answered: what they know may be out of date.
redis.call('SETRANGE', KEYS[7], 0, '')

local function kind(key)
  local t = redis.call('TYPE', key)
  return type(t) == 'table' and t.ok or t
end

for i = 1, #KEYS do
  local want = i == 5 and 'stream' or i == 7 and 'string' or 'hash'
  local have = kind(KEYS[i])
  if have ~= want and have ~= 'none' then
    return {'DAMAGED', KEYS[i] .. ' is a ' .. have .. ', not a ' .. want}
  end
end

local meta = redis.call('HMGET', KEYS[1], 'incarnation', 'format', 'revision', 'mapped')
local incarnation, format, revision, mapped = meta[1], meta[2], meta[3], meta[4]
if not incarnation then
  return {'EMPTY'}
end
if format ~= ARGV[2] then
  return {'FORMAT', tostring(format)}
end
local now = tonumber(revision or '')
if not now or not mapped or now >= 9007199254740992 then -- 2^53
  return {'DAMAGED', KEYS[1] .. ' has no revision'}
end

local id, digest = ARGV[3], ARGV[4]
local was = redis.call('HGET', KEYS[6], 'id:' .. id)
if was then
  local d, r, m = string.match(was, '^(%x+) (%d+) (%d+)$')
  if not d then
    return {'DAMAGED', KEYS[6] .. ' has a bad record of the id'}
  end
  if d ~= digest then
    return {'REUSED', r}
  end
  return {'OK', incarnation, r, m}
end
if incarnation ~= ARGV[1] then
  return {'INCARNATION', incarnation}
end
if ARGV[5] ~= '0' and ARGV[5] ~= mapped then
  return {'STALE', 'names changed at revision ' .. mapped .. ', they were checked at ' .. ARGV[5]}
end

local agencies, domains, fixed = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local touched = domains + fixed > 0
local at, nextKey = 15, 8
for _ = 1, agencies do
  local name, base, mapping = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local mappingKey
  if mapping ~= '-' then
    mappingKey = KEYS[nextKey]
    nextKey = nextKey + 1
  end
  local rev, old = '0', '-'
  local record = redis.call('HGET', KEYS[2], name)
  if record then
    rev, old = string.match(record, '^(%d+) (%S+) ')
    if not rev then
      return {'DAMAGED', KEYS[2] .. ' has a bad record of ' .. name}
    end
  end
  if rev ~= base then
    return {'STALE', 'agency ' .. name .. ' is at revision ' .. rev .. ', the change is computed from ' .. base}
  end
  if mapping ~= old then
    touched = true
    if mappingKey and redis.call('HEXISTS', mappingKey, 'complete') == 0 then
      return {'NOMAPPING', 'agency ' .. name .. ': ' .. mapping}
    end
  end
  at = at + 4
end
if touched and ARGV[5] == '0' then
  return {'UNCHECKED'}
end

-- From here on nothing is refused any more.
local new = string.format('%.0f', now + 1)
if touched then
  mapped = new
end
local clock = redis.call('TIME')
redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[6], new .. '-0',
  'incarnation', incarnation, 'mapped', mapped, 'id', id, 'time', clock[1] .. ' ' .. clock[2],
  'who', ARGV[8], 'what', ARGV[9], 'reason', ARGV[10], 'records', ARGV[11])
at = 15
for _ = 1, agencies do
  redis.call('HSET', KEYS[2], ARGV[at], new .. ' ' .. ARGV[at + 2] .. ' ' .. ARGV[at + 3])
  at = at + 4
end
for i = 1, domains + fixed do
  local key = i <= domains and KEYS[3] or KEYS[4]
  if ARGV[at + 1] == '' then
    redis.call('HDEL', key, ARGV[at])
  else
    redis.call('HSET', key, ARGV[at], new .. ' ' .. ARGV[at + 1])
  end
  at = at + 2
end
redis.call('HSET', KEYS[6], 'id:' .. id, digest .. ' ' .. new .. ' ' .. mapped, 'at:' .. new, id)
local oldest = 'at:' .. string.format('%.0f', now + 1 - tonumber(ARGV[7]))
local forgotten = redis.call('HGET', KEYS[6], oldest)
if forgotten then
  redis.call('HDEL', KEYS[6], oldest, 'id:' .. forgotten)
end
redis.call('HSET', KEYS[1], 'revision', new, 'mapped', mapped)
return {'OK', incarnation, new, mapped}
