-- Gives an empty table its incarnation, and leaves one that has one as it is.
--
-- KEYS  1 meta  2 agency  3 domain  4 fixed  5 log  6 applied  7 confirm
-- ARGV  1 a fresh incarnation  2 format
--
-- Records without meta are the rest of something: a person has to look.

redis.call('SETRANGE', KEYS[7], 0, '') -- refused by a replica, as in change.lua

local meta = redis.call('HMGET', KEYS[1], 'incarnation', 'format', 'revision', 'mapped')
if meta[1] then
  if meta[2] ~= ARGV[2] then
    return {'FORMAT', tostring(meta[2])}
  end
  if not meta[3] or not meta[4] then
    return {'DAMAGED', KEYS[1] .. ' has no revision'}
  end
  return {'OK', meta[1], meta[3], meta[4]}
end
for i = 1, 6 do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    return {'DAMAGED', 'there is a ' .. KEYS[i] .. ', but no incarnation'}
  end
end
local clock = redis.call('TIME')
redis.call('XADD', KEYS[5], '1-0', 'incarnation', ARGV[1], 'mapped', '1', 'id', 'init',
  'time', clock[1] .. ' ' .. clock[2], 'who', '', 'what', 'init', 'reason', '', 'records', '{}')
redis.call('HSET', KEYS[1], 'incarnation', ARGV[1], 'format', ARGV[2], 'revision', '1', 'mapped', '1')
return {'OK', ARGV[1], '1', '1'}
