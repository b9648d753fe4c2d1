-- Opens a restored log. KEYS: head, log, positions. ARGV: incarnation, epoch, and the seq and digest it must end with.
-- Replies OK, also when repeated, or {REFUSED, detail}.
local head = read_head()
if not head then
  return {'REFUSED', 'there is no log'}
end
if head.incarnation ~= tonumber(ARGV[1]) or head.epoch ~= tonumber(ARGV[2]) then
  return {'REFUSED', 'it is at ' .. decimal(head.incarnation) .. '/' .. decimal(head.epoch)}
end
local last = tonumber(ARGV[3])
if head.state == 'open' then
  -- A repeated call may find that writes have followed.
  local digest = last <= head.seq and digest_at(head, last)
  if digest == ARGV[4] then
    return {'OK'}
  end
  return {'REFUSED', 'it is already open at ' .. decimal(head.seq)}
end
if head.seq ~= last or head.digest ~= ARGV[4] then
  return {'REFUSED', 'it ends at ' .. decimal(head.seq)}
end
redis.call('HSET', KEYS[1], 'state', 'open')
return {'OK'}
