-- Marks a mapping as complete if all its parts are there. Nobody uses it before.
--
-- KEYS  1 mapping
-- ARGV  1 number of parts  2 their size in all  3 prefix of their fields  4 the mark

if redis.call('HEXISTS', KEYS[1], 'complete') == 1 then
  return {'OK'}
end
local size = 0
for i = 0, tonumber(ARGV[1]) - 1 do
  size = size + redis.call('HSTRLEN', KEYS[1], ARGV[3] .. i)
end
if string.format('%.0f', size) ~= ARGV[2] then
  return {'DAMAGED', 'of ' .. ARGV[2] .. ' bytes only ' .. string.format('%.0f', size) .. ' are there'}
end
redis.call('HSET', KEYS[1], 'complete', ARGV[4])
redis.call('PERSIST', KEYS[1])
return {'OK'}
