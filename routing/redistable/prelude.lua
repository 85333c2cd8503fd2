-- What all scripts that look at nodes begin with. Only plain commands and the functions
-- of Lua's string library are used, and no JSON is read.
--
-- KEYS  1 meta  2 agency  3 domain  4 fixed  5 log  6 applied  7 confirm  8 member
--       9 lease  10 drained  11 operation  12 freeze  13 above  14 ended
--       15 document
--
-- Answers are a word and what belongs to it, all text: numbers of Lua are doubles. Moments
-- are microseconds since 1970, revisions and moments less than 2^53.

-- A write of nothing. A replica, a primary that lost its replicas and a server whose
-- memory or disk is full refuse it, and so the whole script, also where it would only
-- have answered: what they know may be out of date.
redis.call('SETRANGE', KEYS[7], 0, '')

local function kind(key)
  local t = redis.call('TYPE', key)
  return type(t) == 'table' and t.ok or t
end

-- badType names the first key of a wrong type. A script that fails half-way keeps what it
-- wrote, so types are looked at before.
local function badType()
  for i = 1, #KEYS do
    local want = i == 5 and 'stream' or i == 7 and 'string' or i == 14 and 'list' or 'hash'
    local have = kind(KEYS[i])
    if have ~= want and have ~= 'none' then
      return {'DAMAGED', KEYS[i] .. ' is a ' .. have .. ', not a ' .. want}
    end
  end
end

local function whole(n)
  return string.format('%.0f', n)
end

local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- The server: a process, and the history of writes that it is part of.
local server = redis.call('INFO', 'server')
local run = string.match(server, 'run_id:(%x+)') or ''
local history = redis.call('INFO', 'replication')
local replication = string.match(history, 'master_replid:(%x+)') or ''
local former = string.match(history, 'master_replid2:(%x+)') or ''
if string.match(former, '^0*$') then
  former = ''
end

-- meta, read by readMeta: what table.Book has in fields of its own.
local incarnation, mapped, acceptedRun, acceptedReplication, prior, rejoining
local revision, term, previous, base, began, longest

local function readMeta(format)
  local m = redis.call('HMGET', KEYS[1], 'incarnation', 'format', 'revision', 'mapped', 'term', 'server', 'replication',
    'previous', 'base', 'began', 'longest', 'rejoining', 'prior')
  if not m[1] then
    return {'EMPTY'}
  end
  if m[2] ~= format then
    return {'FORMAT', tostring(m[2])}
  end
  incarnation, mapped, acceptedRun, acceptedReplication = m[1], m[4], m[6], m[7]
  revision, term, previous = tonumber(m[3] or ''), tonumber(m[5] or ''), tonumber(m[8] or '')
  base, began, longest = tonumber(m[9] or ''), tonumber(m[10] or ''), tonumber(m[11] or '')
  rejoining, prior = m[12] == '1', m[13]
  if not revision or not mapped or revision >= 9007199254740992 then -- 2^53
    return {'DAMAGED', KEYS[1] .. ' has no revision'}
  end
  if not (acceptedRun and acceptedReplication and prior and term and previous and base and began and longest) or term >= 4294967295 then
    return {'DAMAGED', KEYS[1] .. ' has no term'}
  end
end

-- lineageWith returns a lineage, oldest term first, with another term at its end:
-- TERM:BASE:BEGAN each, and no more than routing.MaxLineage of them.
local function lineageWith(lineage, number, from, at)
  local terms = {}
  for word in string.gmatch(lineage .. ' ' .. number .. ':' .. from .. ':' .. at, '%S+') do
    terms[#terms + 1] = word
  end
  return table.concat(terms, ' ', math.max(1, #terms - 255))
end

-- moved: another server answers than the one that was accepted. The history of the same
-- process gets another id when its first replica comes, but only one with a former history
-- was somebody else's replica meanwhile.
local function moved()
  return acceptedRun ~= run or acceptedReplication ~= replication and former ~= ''
end

-- compare returns a number below, at or above 0 as epoch a is older than, the same as or
-- newer than b; nil if one is none.
local function compare(a, b)
  local at, an = string.match(a, '^(%d+)%.(%d+)$')
  local bt, bn = string.match(b, '^(%d+)%.(%d+)$')
  if not at or not bt then
    return nil
  end
  if at ~= bt then
    return tonumber(at) - tonumber(bt)
  end
  return tonumber(an) - tonumber(bn)
end

-- The records' words before the JSON.

local function agencyOf(text)
  local rev, mapping, epoch, answer = string.match(text, '^(%d+) (%S+) (%d+%.%d+) (%S+) ')
  return rev and {rev = rev, mapping = mapping, epoch = epoch, answer = answer}
end

local function memberOf(text)
  local rev, instance, state, protocol, attested, draining, joined, runs, unconfirmed, json =
    string.match(text, '^(%d+) (%S+) (%a+) (%d+) (%S+) ([01]) (%d+) ([01]) (%S+) (.*)$')
  return rev and {rev = rev, instance = instance, evicted = state == 'evicted', protocol = protocol,
    attested = attested, draining = draining, joined = joined, runs = runs, unconfirmed = unconfirmed, json = json}
end

local function leaseOf(text)
  local instance, counter, sequence, short, long, taken, seenTerm, applied, behind, proof, anew, by =
    string.match(text, '^(%S+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) ([01]) ([01]) ([01]) (%S+) ')
  return instance and {instance = instance, counter = counter, sequence = tonumber(sequence), short = tonumber(short),
    long = tonumber(long), taken = tonumber(taken), term = tonumber(seenTerm), applied = tonumber(applied),
    behind = behind == '1', proof = proof == '1', anew = anew == '1', by = by}
end

-- readLease returns a node's lease; one that never was for a node without.
local function readLease(node)
  local text = redis.call('HGET', KEYS[9], node)
  if not text then
    return {instance = '-', counter = '0', sequence = 0, short = 0, long = 0, taken = 0, term = 0, applied = 0}
  end
  return leaseOf(text)
end

-- proves: whether the end of a member's long lease proves anything. The clock of a machine
-- that was stopped may have stood still, and the node go on after it; who gave the lease up
-- (both ends are the same) doesn't.
local function gaveUp(lease)
  return lease.short == lease.long and lease.taken == term
end
local function proves(lease, member)
  return member.runs == '1' or gaveUp(lease)
end

-- over returns when a lease is over for sure. The renewals of a server that is gone may be
-- missing here: what they granted lasted no longer than the longest lease after it.
local function over(lease, stop)
  if lease.taken == term then
    return stop
  end
  return math.max(stop, began + longest)
end
