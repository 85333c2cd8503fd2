-- One change of the table: every condition first, then all writes.
--
-- KEYS  16...   the mapping of each agency below that has one, in order
-- ARGV  1 incarnation   2 format        3 change id    4 digest of the change
--       5 mapped, 0: not compared       6 log length   7 ids to remember
--       8 who  9 what  10 reason        11 the records as the log keeps them
--       12 number of agencies           13 of domains  14 of fixed addresses
--       15 of members   16 of operations               17 of freezes
--       18 term         19 may happen while rejoining 0/1      20 ends the rejoin 0/1
--       21 revision that members have applied, 0: any          22 protocol, 0: any
--       23 number of unfrozen agencies  24 of drained agencies 25 of fences
--       26 operations to remember that ended                  27 number of documents
--       28 revision whose knowledge makes a short fence count, then
--       per agency:     id, revision it was computed from, mapping's digest or "-",
--                       epoch, answer, JSON
--       per domain:     name, JSON or "" to remove it
--       per fixed:      address, JSON or ""
--       per member:     node, revision, instance, "in" or "evicted", protocol, attested
--                       or "-", draining 0/1, joined, whether its clock runs 0/1,
--                       unconfirmed or "-", JSON
--       per operation:  id, revision, "open" or "ended", JSON
--       per freeze:     agency or "*", revision, JSON or ""
--       per document:   key, revision, JSON or ""
--       per unfrozen:   agency
--       per drained:    agency, epoch
--       per fence:      node, instance, counter, kind
--
-- Only OK has written. A script that fails half-way keeps what it wrote, so the log, which
-- may refuse a revision that it has seen, is written first.

local bad = badType() or readMeta(ARGV[2])
if bad then
  return bad
end
local id, digest = ARGV[3], ARGV[4]
local done = redis.call('HGET', KEYS[6], 'id:' .. id)
if done then
  local d, r, m, t = string.match(done, '^(%x+) (%d+) (%d+) (%d+)$')
  if not d then
    return {'DAMAGED', KEYS[6] .. ' has a bad record of the id'}
  end
  if d ~= digest then
    return {'REUSED', r}
  end
  return {'OK', incarnation, r, m, t}
end
if incarnation ~= ARGV[1] then
  return {'INCARNATION', incarnation}
end
if ARGV[5] ~= '0' and ARGV[5] ~= mapped then
  return {'STALE', 'names changed at revision ' .. mapped .. ', they were checked at ' .. ARGV[5]}
end
local agencies, domains, fixed = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local members, operations, freezes = tonumber(ARGV[15]), tonumber(ARGV[16]), tonumber(ARGV[17])
local inTerm, endRejoin, needApplied = tonumber(ARGV[18]), ARGV[20] == '1', tonumber(ARGV[21])
local needKnown = tonumber(ARGV[28])
local unfrozen, drained, fenced = tonumber(ARGV[23]), tonumber(ARGV[24]), tonumber(ARGV[25])
local now = clock()

-- Where each list begins.
local atAgency = 29
local atDomain = atAgency + 6 * agencies
local atMember = atDomain + 2 * (domains + fixed)
local atOperation = atMember + 11 * members
local atFreeze = atOperation + 4 * operations
local atDocument = atFreeze + 3 * freezes
local atUnfrozen = atDocument + 3 * tonumber(ARGV[27])
local atDrained = atUnfrozen + unfrozen
local atFence = atDrained + 2 * drained

-- The records that it was computed from.
local function stale(kind, name, have, want)
  return {'STALE', kind .. ' ' .. name .. ' is at revision ' .. have .. ', the change is computed from ' .. want}
end
local touched, nextKey = domains + fixed > 0, 16
local wrongTerm
for i = atAgency, atDomain - 1, 6 do
  local name, mapping = ARGV[i], ARGV[i + 2]
  local mappingKey
  if mapping ~= '-' then
    mappingKey = KEYS[nextKey]
    nextKey = nextKey + 1
  end
  local was = {rev = '0', mapping = '-', epoch = ''}
  local record = redis.call('HGET', KEYS[2], name)
  if record then
    was = agencyOf(record)
    if not was then
      return {'DAMAGED', KEYS[2] .. ' has a bad record of ' .. name}
    end
  end
  if was.rev ~= ARGV[i + 1] then
    return stale('agency', name, was.rev, ARGV[i + 1])
  end
  if mapping ~= was.mapping then
    touched = true
    if ARGV[5] == '0' then
      return {'UNCHECKED'}
    end
    if mappingKey and redis.call('HEXISTS', mappingKey, 'complete') == 0 then
      return {'NOMAPPING', 'agency ' .. name .. ': ' .. mapping}
    end
  end
  if ARGV[i + 3] ~= was.epoch and string.match(ARGV[i + 3], '^(%d+)') ~= ARGV[18] then
    wrongTerm = wrongTerm or 'the new epoch of agency ' .. name .. ' is ' .. ARGV[i + 3]
  end
end
for i = atOperation, atFreeze - 1, 4 do
  local record = redis.call('HGET', KEYS[11], ARGV[i])
  local rev = record and string.match(record, '^(%d+) ') or '0'
  if rev ~= ARGV[i + 1] then
    return stale('operation', ARGV[i], rev, ARGV[i + 1])
  end
end
for i = atFreeze, atUnfrozen - 1, 3 do
  local freeze = i < atDocument
  local record = redis.call('HGET', freeze and KEYS[12] or KEYS[15], ARGV[i])
  local rev = record and string.match(record, '^(%d+) ') or '0'
  if rev ~= ARGV[i + 1] then
    return stale(freeze and 'freeze' or 'document', ARGV[i], rev, ARGV[i + 1])
  end
end

-- Server and term.
if moved() then
  return {'REJOINING', 'no node has renewed with this server'}
end
if rejoining and ARGV[19] ~= '1' and not endRejoin then
  return {'REJOINING', ''}
end
local raised = endRejoin and inTerm > term
if inTerm ~= term and not raised then
  return {'TERM', whole(term) .. ', the change was computed in ' .. ARGV[18]}
end
if wrongTerm then
  return {'TERM', ARGV[18] .. ', ' .. wrongTerm}
end

-- What nodes have seen and the table lost is not built upon. Only people decide what
-- becomes of it, with an epoch that is above in number, too.
if redis.call('HLEN', KEYS[13]) > 0 then
  for i = atAgency, atDomain - 1, 6 do
    local said = redis.call('HGET', KEYS[13], ARGV[i])
    if said then
      local epoch = string.match(said, '^(%S+)') or ''
      local have, want = string.match(epoch, '%.(%d+)$'), string.match(ARGV[i + 3], '%.(%d+)$')
      if not have or not want or ARGV[19] ~= '1' or tonumber(want) <= tonumber(have) then
        return {'GUARD', 'nodes have seen agency ' .. ARGV[i] .. ' at epoch ' .. epoch .. ', which the table lost: it has to be reconciled'}
      end
    end
  end
end

-- The guard.
local fences = {}
for i = atFence, #ARGV, 4 do
  fences[ARGV[i]] = fences[ARGV[i]] or {instance = ARGV[i + 1], counter = ARGV[i + 2], kind = ARGV[i + 3]}
end
local function hasApplied(l, need)
  return l.term == term and l.applied >= need
end
local function holds(fence, member, attested, need)
  if fence.instance ~= member.instance then
    return false
  end
  if fence.kind == 'attested' then
    return attested == member.instance
  end
  local l = member.lease
  if l.counter ~= fence.counter or l.counter ~= '0' and l.instance ~= member.instance then
    return false
  end
  if fence.kind == 'short' then
    return now > over(l, l.short) and (l.short == 0 and l.taken == term or hasApplied(l, need))
  end
  return fence.kind == 'long' and now > over(l, l.long) and proves(l, member)
end
local all, names = {}, {}
if members > 0 or drained > 0 or needApplied > 0 or ARGV[22] ~= '0' then
  local flat = redis.call('HGETALL', KEYS[8])
  for i = 1, #flat, 2 do
    local m = memberOf(flat[i + 1])
    local l = m and readLease(flat[i])
    if not l then
      return {'DAMAGED', 'bad record of node ' .. flat[i]}
    end
    m.lease = l
    all[flat[i]] = m
    names[#names + 1] = flat[i]
  end
  table.sort(names)
end
for i = atMember, atOperation - 1, 11 do
  local node, was = ARGV[i], all[ARGV[i]]
  local evicted = ARGV[i + 3] == 'evicted'
  if not was then
    return {'GUARD', 'node ' .. node .. ' is no member: it joins by a renewal'}
  end
  if was.rev ~= ARGV[i + 1] then
    return stale('node', node, was.rev, ARGV[i + 1])
  end
  if was.instance ~= ARGV[i + 2] then
    return {'GUARD', 'only node ' .. node .. ' itself takes another instance'}
  end
  if was.evicted and not evicted then
    return {'GUARD', 'node ' .. node .. ' is evicted: it comes back as another instance'}
  end
  if evicted and not was.evicted then
    local f = fences[node]
    if not f or f.kind == 'short' or not holds(f, was, ARGV[i + 5], 0) then
      return {'GUARD', 'node ' .. node .. ' is to be evicted without a fence'}
    end
  end
end
for i = atUnfrozen, atDrained - 1 do
  if redis.call('HEXISTS', KEYS[12], '*') == 1 or redis.call('HEXISTS', KEYS[12], ARGV[i]) == 1 then
    return {'GUARD', 'agency ' .. ARGV[i] .. ' is frozen'}
  end
end
local function missing(node, m)
  local l = m.lease
  if l.taken ~= term or l.instance ~= m.instance then
    return 'has not renewed with this server'
  end
  for i = atDrained, atFence - 1, 2 do
    local report = redis.call('HGET', KEYS[10], node .. ' ' .. ARGV[i])
    local instance, taken, epoch = string.match(report or '', '^(%S+) (%d+) (%S+)$')
    local c = epoch and compare(epoch, ARGV[i + 1])
    if instance ~= m.instance or tonumber(taken) ~= term or not c or c < 0 then
      return 'has not drained agency ' .. ARGV[i] .. ' at epoch ' .. ARGV[i + 1]
    end
  end
  if drained == 0 and not hasApplied(l, needApplied) then
    return 'has not applied revision ' .. ARGV[21]
  end
end
for i = 1, #names do
  local node = names[i]
  local m = all[node]
  if not m.evicted then
    if ARGV[22] ~= '0' and m.protocol ~= ARGV[22] then
      return {'GUARD', 'node ' .. node .. ' has protocol ' .. m.protocol .. ', want ' .. ARGV[22]}
    end
    local why = (drained > 0 or needApplied > 0) and missing(node, m)
    local f = fences[node]
    if why and not (f and holds(f, m, m.attested, needKnown)) then
      return {'GUARD', 'node ' .. node .. ' ' .. why}
    end
  end
end

-- From here on nothing is refused any more.
local new = whole(revision + 1)
if touched then
  mapped = new
end
redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[6], new .. '-0',
  'incarnation', incarnation, 'mapped', mapped, 'term', ARGV[18], 'id', id, 'time', whole(now),
  'who', ARGV[8], 'what', ARGV[9], 'reason', ARGV[10], 'records', ARGV[11])
local lost = redis.call('HLEN', KEYS[13]) > 0
for i = atAgency, atDomain - 1, 6 do
  redis.call('HSET', KEYS[2], ARGV[i], new .. ' ' .. ARGV[i + 2] .. ' ' .. ARGV[i + 3] .. ' ' .. ARGV[i + 4] .. ' ' .. ARGV[i + 5])
  local said = lost and redis.call('HGET', KEYS[13], ARGV[i])
  if said and (compare(ARGV[i + 3], string.match(said, '^(%S+)') or '') or 0) > 0 then
    redis.call('HDEL', KEYS[13], ARGV[i])
  end
end
for i = 1, domains + fixed do
  local key, at = i <= domains and KEYS[3] or KEYS[4], atDomain + 2 * (i - 1)
  if ARGV[at + 1] == '' then
    redis.call('HDEL', key, ARGV[at])
  else
    redis.call('HSET', key, ARGV[at], new .. ' ' .. ARGV[at + 1])
  end
end
for i = atMember, atOperation - 1, 11 do
  redis.call('HSET', KEYS[8], ARGV[i], new .. ' ' .. table.concat({unpack(ARGV, i + 2, i + 10)}, ' '))
end
for i = atOperation, atFreeze - 1, 4 do
  redis.call('HSET', KEYS[11], ARGV[i], new .. ' ' .. ARGV[i + 2] .. ' ' .. ARGV[i + 3])
  if ARGV[i + 2] == 'ended' then
    redis.call('RPUSH', KEYS[14], new .. ' ' .. ARGV[i])
  end
end
while operations > 0 and redis.call('LLEN', KEYS[14]) > tonumber(ARGV[26]) do
  local rev, name = string.match(redis.call('LPOP', KEYS[14]), '^(%d+) (.*)$')
  local record = name and redis.call('HGET', KEYS[11], name)
  if record and string.match(record, '^(%d+) ended ') == rev then
    redis.call('HDEL', KEYS[11], name)
  end
end
for i = atFreeze, atUnfrozen - 1, 3 do
  local key = i < atDocument and KEYS[12] or KEYS[15]
  if ARGV[i + 2] == '' then
    redis.call('HDEL', key, ARGV[i])
  else
    redis.call('HSET', key, ARGV[i], new .. ' ' .. ARGV[i + 2])
  end
end
redis.call('HSET', KEYS[6], 'id:' .. id, digest .. ' ' .. new .. ' ' .. mapped .. ' ' .. ARGV[18], 'at:' .. new, id)
local oldest = 'at:' .. whole(revision + 1 - tonumber(ARGV[7]))
local forgotten = redis.call('HGET', KEYS[6], oldest)
if forgotten then
  redis.call('HDEL', KEYS[6], oldest, 'id:' .. forgotten)
end
redis.call('HSET', KEYS[1], 'revision', new, 'mapped', mapped)
if raised then
  redis.call('HSET', KEYS[1], 'term', ARGV[18], 'previous', whole(term), 'base', whole(revision), 'began', whole(now),
    'lineage', lineageWith(redis.call('HGET', KEYS[1], 'lineage') or '', ARGV[18], whole(revision), whole(now)))
end
if endRejoin then
  redis.call('HSET', KEYS[1], 'rejoining', '0')
end
return {'OK', incarnation, new, mapped, ARGV[18]}
