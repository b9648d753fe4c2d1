-- Appends entries to a log under restoration. KEYS: head, log, positions.
-- ARGV: incarnation, epoch, then seq, number of records, digest and payload in turn. Replies OK or {why not, detail}.
-- Checks everything before it writes anything. What is already there is skipped, so a repeated call does no harm.
local head = read_head()
if not head then
  return {'REFUSED', 'there is no log'}
end
if head.incarnation ~= tonumber(ARGV[1]) or head.epoch ~= tonumber(ARGV[2]) or head.state ~= 'restoring' then
  return {'REFUSED', decimal(head.incarnation) .. '/' .. decimal(head.epoch) .. ' is ' .. head.state}
end

local seq, digest = head.seq, head.digest
local payload_digests = {}
for i = 3, #ARGV, 4 do
  local this = tonumber(ARGV[i])
  if this <= head.seq then
    if digest_at(head, this) ~= ARGV[i + 2] then
      return {'FORKED', ARGV[i]}
    end
  else
    if this ~= seq + tonumber(ARGV[i + 1]) then
      return {'GAP', decimal(seq), ARGV[i]}
    end
    payload_digests[i] = raw_sha1(ARGV[i + 3])
    digest = extend(digest, this, payload_digests[i])
    if digest ~= ARGV[i + 2] then
      return {'FORKED', ARGV[i]}
    end
    seq = this
  end
end

for i = 3, #ARGV, 4 do
  if payload_digests[i] then
    add_entry(head, ARGV[i + 3], payload_digests[i], '', tonumber(ARGV[i + 1]))
  end
end
write_progress(head)
return {'OK'}
