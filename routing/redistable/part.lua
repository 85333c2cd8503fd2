-- Stores one part of a mapping, unless the mapping is complete already.
--
-- KEYS  1 mapping
-- ARGV  1 part's field  2 part  3 seconds that an incomplete mapping is kept
--
-- Parts that nobody completes go by themselves. That is decided here, together with the
-- look at the mark, so that a straggler can't set a time limit on a mapping in use.

if redis.call('HEXISTS', KEYS[1], 'complete') == 1 then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
