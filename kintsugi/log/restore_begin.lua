-- Empties a log and begins its restoration. KEYS: head, log, positions.
-- ARGV: incarnation, epoch, base seq, base digest, then member and position in turn.
-- Replies OK or {REFUSED, incarnation/epoch, state}: a log is restored under a higher epoch only, or restarted.
local incarnation, epoch = tonumber(ARGV[1]), tonumber(ARGV[2])
local head = read_head()
if head then
  local restarted = head.incarnation == incarnation and head.epoch == epoch and head.state == 'restoring'
  if not restarted and (head.epoch >= epoch or head.incarnation > incarnation) then
    return {'REFUSED', decimal(head.incarnation) .. '/' .. decimal(head.epoch), head.state}
  end
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'incarnation', ARGV[1], 'epoch', ARGV[2], 'state', 'restoring', 'seq', ARGV[3],
  'digest', ARGV[4], 'bytes', 0, 'base_seq', ARGV[3], 'base_digest', ARGV[4])
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
end
return {'OK'}
