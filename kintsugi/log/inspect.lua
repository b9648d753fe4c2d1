-- Reads the head and what a replica compares itself with. KEYS: head, log, positions. ARGV: a seq.
-- Replies nil when there is no log.
local head = read_head()
if not head then
  return nil
end
local first = first_entry()
local seq = tonumber(ARGV[1])
return {
  decimal(head.incarnation), decimal(head.epoch), decimal(head.seq), head.digest,
  decimal(head.base_seq), head.base_digest, head.state,
  decimal(first and first.first_seq or head.seq + 1), decimal(first and first.seq or head.seq + 1),
  decimal(kept_bytes(head, first)),
  is_whole(head) and 1 or 0, seq <= head.seq and digest_at(head, seq) or false,
}
