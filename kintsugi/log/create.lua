-- Creates an empty log. KEYS: head, log, positions. ARGV: incarnation, epoch, then the members that trimming waits for.
-- Replies OK, also when it is already there, or EXISTS when another log is.
local head = read_head()
if head then
  local same = head.incarnation == tonumber(ARGV[1]) and head.epoch == tonumber(ARGV[2])
  return same and 'OK' or 'EXISTS'
end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'incarnation', ARGV[1], 'epoch', ARGV[2], 'state', 'open', 'seq', 0, 'digest', '',
  'bytes', 0, 'base_seq', 0, 'base_digest', '')
for i = 3, #ARGV do
  redis.call('HSET', KEYS[3], ARGV[i], 0)
end
return 'OK'
