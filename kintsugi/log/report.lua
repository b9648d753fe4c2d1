-- Sets a member's position. KEYS: head, log, positions. ARGV: member, seq.
-- Replies whether the log still holds every entry after seq, its last sequence number, and the bytes that it keeps.
-- Without a log there is nothing to hold.
local head = read_head()
if not head then
  return {0, 0, 0}
end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
local first = first_entry()
local holds = (first and first.seq or head.seq + 1) <= tonumber(ARGV[2]) + 1
return {holds and 1 or 0, head.seq, kept_bytes(head, first)}
