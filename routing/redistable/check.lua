-- Whether these versions are the agencies' newest, open ones, for a member with a lease.
-- It changes nothing; see the prelude for how it still is a write.
--
-- ARGV  1 incarnation  2 format  3 node  4 instance
--       5 mapped of a copy that lacks a name, 0: none is asked for    6 its term
--       7 key of the document that says that names were lost, then per agency: id, epoch

local bad = readMeta(ARGV[2])
if bad then
  return bad
end
if incarnation ~= ARGV[1] then
  return {'INCARNATION', incarnation}
end
if moved() or rejoining then
  return {'REJOINING', ''}
end
local node, instance = ARGV[3], ARGV[4]
local text = redis.call('HGET', KEYS[8], node)
if not text then
  return {'NOTMEMBER', 'node ' .. node .. ' is unknown'}
end
local member, lease = memberOf(text), readLease(node)
if not member or not lease then
  return {'DAMAGED', 'bad record of node ' .. node}
end
if member.evicted or member.attested == instance then
  return {'EVICTED', node .. ' (instance ' .. member.instance .. ')'}
end
if member.instance ~= instance then
  return {'INSTANCE', node .. ' (instance ' .. member.instance .. ') has it'}
end
if lease.taken ~= term or lease.instance ~= instance or lease.behind or clock() > lease.short then
  return {'NOTMEMBER', 'node ' .. node .. ': its lease is over'}
end
if ARGV[5] ~= '0' and (ARGV[5] ~= mapped or tonumber(ARGV[6]) ~= term or redis.call('HEXISTS', KEYS[15], ARGV[7]) == 1) then
  return {'STALE', 'names were changed or lost since revision ' .. ARGV[5] .. ' of term ' .. ARGV[6]}
end
local lost = redis.call('HLEN', KEYS[13]) > 0
for i = 8, #ARGV, 2 do
  local record = redis.call('HGET', KEYS[2], ARGV[i])
  local a = record and agencyOf(record)
  if not a or a.epoch ~= ARGV[i + 1] or string.sub(a.answer, 1, 5) ~= 'open:'
    or lost and redis.call('HEXISTS', KEYS[13], ARGV[i]) == 1 then
    return {'STALE', 'agency ' .. ARGV[i] .. ' is not open at epoch ' .. ARGV[i + 1]}
  end
end
return {'OK', incarnation, whole(revision), mapped, whole(term)}
