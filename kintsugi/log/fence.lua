-- Refuses requests from now on that were checked against a registry before a revision. KEYS: head, log, positions.
-- ARGV: incarnation, epoch, revision. Replies {refusal, detail} or {'OK', the last sequence number}: no request that was
-- checked against an earlier registry comes after it. A fence is never lowered.
local head = read_head()
if not head then
  return {'LOG_MISSING'}
end
if head.incarnation ~= tonumber(ARGV[1]) or head.epoch ~= tonumber(ARGV[2]) then
  return {'EPOCH_MOVED', decimal(head.incarnation) .. '/' .. decimal(head.epoch)}
end
if head.state ~= 'open' then
  return {'LOG_RESTORING'}
end
if head.fence < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'fence', ARGV[3])
end
return {'OK', decimal(head.seq)}
