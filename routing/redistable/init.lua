-- Gives an empty table its incarnation, and leaves one that has one as it is.
--
-- ARGV  1 a fresh incarnation  2 format
--
-- Records without meta are the rest of something: a person has to look.

if redis.call('HEXISTS', KEYS[1], 'incarnation') == 1 then
  return readMeta(ARGV[2]) or {'OK', incarnation, whole(revision), mapped, whole(term)}
end
for i = 1, 15 do
  if i ~= 7 and redis.call('EXISTS', KEYS[i]) == 1 then
    return {'DAMAGED', 'there is a ' .. KEYS[i] .. ', but no incarnation'}
  end
end

local now = clock()
redis.call('XADD', KEYS[5], '1-0', 'incarnation', ARGV[1], 'mapped', '1', 'term', '1', 'id', 'init',
  'time', whole(now), 'who', '', 'what', 'init', 'reason', '', 'records', '{}')
redis.call('HSET', KEYS[1], 'incarnation', ARGV[1], 'format', ARGV[2], 'revision', '1', 'mapped', '1', 'term', '1',
  'server', run, 'replication', replication, 'previous', '0', 'base', '1', 'began', whole(now), 'longest', '0', 'rejoining', '0', 'prior', '',
  'lineage', lineageWith('', '1', '0', whole(now)))
return {'OK', ARGV[1], '1', '1', '1'}
