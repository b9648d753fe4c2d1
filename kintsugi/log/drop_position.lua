-- Forgets a member's position. KEYS: head, log, positions. ARGV: member, the position it must still have (empty: any).
-- Replies whether it was there.
if ARGV[2] ~= '' and redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[2] then
  return 0
end
return redis.call('HDEL', KEYS[3], ARGV[1])
