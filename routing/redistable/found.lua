-- Fills a table that is empty, or has had nothing but nodes, with a node's copy, all at
-- once.
--
-- KEYS and ARGV are those of a change, with every record's revision ignored, and behind
-- them: the copy's revision, its term, the longest lease in microseconds, and its lineage.
--
-- Records without meta are the rest of something: a person has to look.

local bad = badType()
if bad then
  return bad
end
local id, digest = ARGV[3], ARGV[4]
local bare = false
if redis.call('HEXISTS', KEYS[1], 'incarnation') == 1 then
  bad = readMeta(ARGV[2])
  if bad then
    return bad
  end
  local d, r, m, t = string.match(redis.call('HGET', KEYS[6], 'id:' .. id) or '', '^(%x+) (%d+) (%d+) (%d+)$')
  if d and d ~= digest then
    return {'REUSED', r}
  end
  if d then
    return {'OK', incarnation, r, m, t}
  end
  bare = redis.call('HLEN', KEYS[2]) + redis.call('HLEN', KEYS[3]) + redis.call('HLEN', KEYS[4]) + redis.call('HLEN', KEYS[11]) == 0
  if not bare or revision > tonumber(ARGV[#ARGV - 3]) then
    return {'FOUNDED', 'it stands at revision ' .. whole(revision) .. ' of ' .. incarnation}
  end
end
for i = 1, 15 do
  if not bare and i ~= 7 and redis.call('EXISTS', KEYS[i]) == 1 then
    return {'DAMAGED', 'there is a ' .. KEYS[i] .. ', but no incarnation'}
  end
end
local agencies, domains, fixed = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local members, operations, freezes = tonumber(ARGV[15]), tonumber(ARGV[16]), tonumber(ARGV[17])
local atAgency = 29
local atDomain = atAgency + 6 * agencies
local atMember = atDomain + 2 * (domains + fixed)
local atOperation = atMember + 11 * members
local atFreeze = atOperation + 4 * operations
local atDocument = atFreeze + 3 * freezes
local atEnd = atDocument + 3 * tonumber(ARGV[27])
local base, from, longest = tonumber(ARGV[atEnd]), tonumber(ARGV[atEnd + 1]), tonumber(ARGV[atEnd + 2])

local nextKey = 16
for i = atAgency, atDomain - 1, 6 do
  if ARGV[i + 2] ~= '-' then
    if redis.call('HEXISTS', KEYS[nextKey], 'complete') == 0 then
      return {'NOMAPPING', 'agency ' .. ARGV[i] .. ': ' .. ARGV[i + 2]}
    end
    nextKey = nextKey + 1
  end
end

-- From here on nothing is refused any more. Meta comes last: without it nobody uses the
-- rest.
-- What nodes wrote into the bare one goes; its log's entries lie below the new one's.
if bare then
  for i = 1, 15 do
    if i == 14 then
      while redis.call('LPOP', KEYS[i]) do
      end
    elseif i ~= 5 and i ~= 7 then
      local all = redis.call('HGETALL', KEYS[i])
      for at = 1, #all, 2 do
        redis.call('HDEL', KEYS[i], all[at])
      end
    end
  end
end
local new, now = whole(base + 1), whole(clock())
redis.call('XADD', KEYS[5], new .. '-0', 'incarnation', ARGV[1], 'mapped', new, 'term', ARGV[18], 'id', id, 'time', now,
  'who', ARGV[8], 'what', ARGV[9], 'reason', ARGV[10], 'records', ARGV[11])
for i = atAgency, atDomain - 1, 6 do
  redis.call('HSET', KEYS[2], ARGV[i], new .. ' ' .. ARGV[i + 2] .. ' ' .. ARGV[i + 3] .. ' ' .. ARGV[i + 4] .. ' ' .. ARGV[i + 5])
end
for i = 1, domains + fixed do
  local at = atDomain + 2 * (i - 1)
  redis.call('HSET', i <= domains and KEYS[3] or KEYS[4], ARGV[at], new .. ' ' .. ARGV[at + 1])
end
for i = atMember, atOperation - 1, 11 do
  redis.call('HSET', KEYS[8], ARGV[i], new .. ' ' .. table.concat({unpack(ARGV, i + 2, i + 10)}, ' '))
end
for i = atOperation, atFreeze - 1, 4 do
  redis.call('HSET', KEYS[11], ARGV[i], new .. ' ' .. ARGV[i + 2] .. ' ' .. ARGV[i + 3])
end
for i = atFreeze, atEnd - 1, 3 do
  redis.call('HSET', i < atDocument and KEYS[12] or KEYS[15], ARGV[i], new .. ' ' .. ARGV[i + 2])
end
redis.call('HSET', KEYS[6], 'id:' .. id, digest .. ' ' .. new .. ' ' .. new .. ' ' .. ARGV[18], 'at:' .. new, id)
redis.call('HSET', KEYS[1], 'incarnation', ARGV[1], 'format', ARGV[2], 'revision', new, 'mapped', new, 'term', ARGV[18],
  'server', run, 'replication', replication, 'previous', whole(from), 'base', whole(base), 'began', now,
  'longest', whole(longest), 'rejoining', '1', 'prior', '', 'lineage', lineageWith(ARGV[atEnd + 3], ARGV[18], whole(base), now))
return {'OK', ARGV[1], new, new, ARGV[18]}
