-- Sets a member's position, if the log still holds every entry after it. One that comes too late is forgotten: it would
-- keep the log from being trimmed for a replica that has to copy. KEYS: head, log, positions. ARGV: member, seq.
-- Replies whether the log still holds every entry after seq, its last sequence number, and the bytes that it keeps.
-- Without a log there is nothing to hold.
local head = read_head()
if not head then
  return {0, 0, 0}
end
local first = first_entry()
local holds = (first and first.first_seq or head.seq + 1) <= tonumber(ARGV[2]) + 1
if holds then
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
else
  redis.call('HDEL', KEYS[3], ARGV[1])
end
return {holds and 1 or 0, head.seq, kept_bytes(head, first)}
