-- A node's renewal, by the rules of table.Book in Go: every condition first, then all
-- writes.
--
-- ARGV  1 incarnation   2 format       3 node        4 instance     5 after or "-"
--       6 protocol      7 the member's JSON          8 short        9 long lease, microseconds
--       10 lapsed 0/1   11 term        12 applied    13 replication or "-"
--       14 sequence     15 the lease's JSON          16 highest term seen
--       17 log length   18 grace of a rejoin, microseconds
--       19 clock runs 0/1                         20 fenced instance or "-"  21 its counter
--       22 when the term of 11 began, by the node's copy; 0: it doesn't know
--       23 key of the document that says that names were lost
--       24 its JSON, if the node has seen some, or "-"      25 its JSON, if a node wasn't heard
--       26 number of records above, then per record: agency, epoch, answer, JSON; then
--       per drained agency: id, epoch

local bad = badType() or readMeta(ARGV[2])
if bad then
  return bad
end
if incarnation ~= ARGV[1] then
  return {'INCARNATION', incarnation}
end
local node, instance, after, json = ARGV[3], ARGV[4], ARGV[5], ARGV[7]
local short, long, lapsed = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10] == '1'
local seenTerm, applied, came, sequence = tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[13], tonumber(ARGV[14])
local highest, records = tonumber(ARGV[16]), tonumber(ARGV[26])
local now = clock()

-- The term after this one begins.
local newLineage
local function begin()
  previous, base, began, rejoining = term, revision, now, true
  term = math.max(term, highest) + 1
  newLineage = lineageWith(redis.call('HGET', KEYS[1], 'lineage') or '', whole(term), whole(base), whole(now))
end

-- What others have to know: the log's next entry.
local function enter(what, records, member)
  revision = revision + 1
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[17], whole(revision) .. '-0',
    'incarnation', incarnation, 'mapped', mapped, 'term', whole(term), 'id', 'renewal/' .. whole(revision), 'time', whole(now),
    'who', node, 'what', what, 'reason', '', 'records', records, unpack(member))
end

local function keepMeta()
  if newLineage then
    redis.call('HSET', KEYS[1], 'lineage', newLineage)
  end
  redis.call('HSET', KEYS[1], 'revision', whole(revision), 'term', whole(term), 'server', run, 'replication', replication,
    'previous', whole(previous), 'base', whole(base), 'began', whole(began), 'longest', whole(longest),
    'rejoining', rejoining and '1' or '0', 'prior', acceptedReplication ~= replication and acceptedReplication or prior)
end

-- Who it is.
local text = redis.call('HGET', KEYS[8], node)
local was, old = text and memberOf(text), readLease(node)
if text and not was or not old then
  return {'DAMAGED', 'bad record of node ' .. node}
end
if old.instance == instance and sequence ~= 0 and sequence <= old.sequence then
  return {'STALE', 'renewal ' .. ARGV[14] .. ' of node ' .. node .. ' comes after renewal ' .. whole(old.sequence)}
end
if was then
  if was.instance == instance then
    if was.evicted or was.attested == instance then
      return {'EVICTED', node .. ' (instance ' .. instance .. ')'}
    end
  elseif after ~= was.instance and not was.evicted and was.attested ~= was.instance
    and not (now > over(old, old.long) and (gaveUp(old) or was.runs == '1' and ARGV[20] == was.instance and ARGV[21] == old.counter)) then
    local stop = whole(over(old, old.long))
    if moved() and math.max(term, highest) < 4294967295 then
      -- That another server answers is so, whoever asks. Without a rejoin people could not
      -- even attest that the instance is gone, where no node has its name.
      begin()
      enter('rejoin', '{}', {})
      keepMeta()
    end
    return {'INSTANCE', node .. ' (instance ' .. was.instance .. ') has it until', stop}
  end
end

-- Whether it is still the same table.
-- Another server was in this term too: two failovers at once, of which the second one's
-- server didn't know the first one's. Nobody can go on from what he has then.
local forked = seenTerm == term and (ARGV[22] ~= '0' and tonumber(ARGV[22]) ~= began
  or came ~= '-' and came ~= replication and came ~= acceptedReplication and came ~= prior)
local begins = forked or moved() or highest > term or seenTerm == term and applied > revision
if not was and (begins or rejoining) and applied == 0 and redis.call('HLEN', KEYS[8]) > 0 then
  return {'REJOINING', 'node ' .. node .. ' is new and has seen nothing'}
end
local what = {}
local function note(word)
  if what[#what] ~= word then
    what[#what + 1] = word
  end
end
if begins then
  begin()
  if forked then
    previous = 0
  end
  note('rejoin')
end
if term > 4294967295 then
  return {'DAMAGED', 'term ' .. whole(term)}
end

-- The member's record.
local member = {instance = instance, protocol = ARGV[6], attested = '-', draining = '0', joined = whole(now),
  runs = ARGV[19], unconfirmed = '-', json = json}
if was then
  member.draining, member.unconfirmed = was.draining, was.unconfirmed
  if was.instance == instance then
    member.attested, member.joined = was.attested, was.joined
  end
end
local entered = not was or was.instance ~= instance
-- A life of this node before this one, on another disk, may have seen what the table lost.
local unheard = rejoining and was and was.instance ~= instance and was.instance ~= after
  and (old.behind or not (old.taken == term or old.taken == previous and old.instance ~= '-' and old.short == old.long))
local anew = unheard or old.anew and old.taken == term
if entered then
  note('join')
elseif was.protocol ~= member.protocol or was.runs ~= member.runs or was.json ~= json then
  entered = true
  note('member')
end

-- What it has seen and this table lost.
local lost, at = {}, 27
for _ = 1, records do
  local id, epoch, answer = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local record, said = redis.call('HGET', KEYS[2], id), redis.call('HGET', KEYS[13], id)
  local news = true
  if record then
    local a = agencyOf(record)
    local c = a and compare(a.epoch, epoch)
    if not c then
      return {'DAMAGED', KEYS[2] .. ' has a bad record of ' .. id}
    end
    news = c < 0 or c == 0 and a.answer ~= answer
  end
  if said then
    local c = compare(string.match(said, '^(%S+)') or '', epoch)
    if not c then
      return {'DAMAGED', KEYS[13] .. ' has a bad record of ' .. id}
    end
    news = news and c < 0
  end
  if news then
    lost[#lost + 1] = at
    note('above')
  end
  at = at + 4
end
local behind
if applied == 0 then
  behind = false
elseif seenTerm == term then
  behind = applied > revision
elseif seenTerm ~= previous or applied > base then
  behind = true
elseif ARGV[22] ~= '0' then
  -- A term of that number may have begun elsewhere, too.
  local lineage = newLineage or redis.call('HGET', KEYS[1], 'lineage') or ''
  behind = string.match(' ' .. lineage .. ' ', ' ' .. whole(seenTerm) .. ':%d+:' .. ARGV[22] .. ' ') == nil
end

-- The lease.
local proof = came ~= '-' and came == former or old.proof and old.taken == term
local ends = long > 0 and {whole(now + short), whole(now + long)} or {'0', '0'}
local lease = instance .. ' ' .. whole(tonumber(old.counter) + 1) .. ' ' .. whole(sequence) .. ' ' .. ends[1] .. ' ' .. ends[2] .. ' '
  .. whole(term) .. ' ' .. whole(seenTerm) .. ' ' .. whole(applied) .. ' ' .. (behind and '1' or '0') .. ' ' .. (proof and '1' or '0') .. ' '
  .. (anew and '1' or '0') .. ' ' .. (run == '' and '-' or run) .. ' ' .. ARGV[15]
longest = math.max(longest, long)

-- Whether a rejoin ends with it.
local waits = ''
if rejoining then
  local total, renewed, late, proven, others = 0, 0, 0, 0, 0
  local function count(instance, l)
    total = total + 1
    if l.taken == term and l.instance == instance then
      renewed = renewed + 1
      late = late + (l.behind and 1 or 0)
      proven = proven + (l.proof and 1 or 0)
      others = others + (l.anew and 1 or 0)
    end
  end
  count(instance, {taken = term, instance = instance, behind = behind, proof = proof, anew = anew})
  local members, silent = redis.call('HGETALL', KEYS[8]), false
  for i = 1, #members, 2 do
    local m = memberOf(members[i + 1])
    local l = m and readLease(members[i])
    if not l then
      return {'DAMAGED', 'bad record of node ' .. members[i]}
    end
    if members[i] ~= node then
      local out = m.evicted or m.attested == m.instance and m.unconfirmed == '-'
      if not out then
        count(m.instance, l)
      end
      -- Who was out of it before this term has seen nothing of use.
      if (l.taken ~= term or l.instance ~= m.instance or l.behind) and not (out and tonumber(m.rev) <= base + 1) then
        silent = true
      end
    end
  end
  if others == 0 and late == 0 and (renewed == total or 2 * renewed > total and proven == renewed and now > began + longest + tonumber(ARGV[18])) then
    rejoining = false
    note('rejoined')
    unheard = unheard or silent
  else
    waits = 'rejoining: ' .. whole(renewed) .. ' of ' .. whole(total) .. ' nodes have renewed, ' .. whole(late) .. ' of them have yet to follow'
      .. (others > 0 and ', ' .. whole(others) .. ' came on another disk: people have to end it' or '')
  end
end

local namesLost
if (ARGV[24] ~= '-' or unheard) and redis.call('HEXISTS', KEYS[15], ARGV[23]) == 0 then
  namesLost = ARGV[24] ~= '-' and ARGV[24] or ARGV[25]
  note('names-lost')
end

local settled, armed, why = '1', '1', ''
if long == 0 then
  settled, armed, why = '0', '0', 'the lease was given up'
elseif behind then
  settled, armed, why = '0', '0', 'the node has seen changes that the table lost: its replica has to follow first'
elseif rejoining then
  settled, armed, why = lapsed and '0' or '1', '0', waits
end

-- From here on nothing is refused any more.
if #what > 0 then
  local new = whole(revision + 1)
  local entry = {}
  if entered then
    local record = new .. ' ' .. member.instance .. ' in ' .. member.protocol .. ' ' .. member.attested .. ' '
      .. member.draining .. ' ' .. member.joined .. ' ' .. member.runs .. ' ' .. member.unconfirmed .. ' ' .. json
    entry = {'member', node .. ' ' .. record}
    text = record
  end
  local above = {}
  for i = 1, #lost do
    above[i] = ARGV[lost[i] + 3]
  end
  enter(table.concat(what, ', '), '{"above":[' .. table.concat(above, ',') .. '],"documents":[' .. (namesLost or '') .. ']}', entry)
  if namesLost then
    redis.call('HSET', KEYS[15], ARGV[23], new .. ' ' .. namesLost)
  end
  if entered then
    redis.call('HSET', KEYS[8], node, text)
  end
  for i = 1, #lost do
    redis.call('HSET', KEYS[13], ARGV[lost[i]], ARGV[lost[i] + 1] .. ' ' .. ARGV[lost[i] + 2] .. ' ' .. ARGV[lost[i] + 3])
  end
end
redis.call('HSET', KEYS[9], node, lease)
for i = at, #ARGV, 2 do
  local field = node .. ' ' .. ARGV[i]
  local report = instance .. ' ' .. whole(term) .. ' ' .. ARGV[i + 1]
  if redis.call('HGET', KEYS[10], field) ~= report then
    redis.call('HSET', KEYS[10], field, report)
  end
end
if #what > 0 or acceptedReplication ~= replication or redis.call('HGET', KEYS[1], 'longest') ~= whole(longest) then
  keepMeta()
end
return {'OK', incarnation, whole(revision), mapped, whole(term), settled, armed, why, run, replication}
