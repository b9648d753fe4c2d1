-- Appends a group of requests. KEYS: head, log, positions, then one key per request.
-- ARGV: incarnation, epoch, floor seq, floor digest, byte bound, milliseconds to remember request ids, number of
-- requests, server life that the floor was learnt in (empty: any); then per request: request id, content digest, registry
-- revision it was checked against (empty: does not matter), number of payloads, and per payload the number of its
-- records, its SHA-1 and itself.
-- Replies {refusal, detail} or {'OK', one reply per request}.

-- Every replica can still find the entry at its own position: the trim keeps the lowest one itself.
local function trim(head)
  local first = first_entry()
  local positions = redis.call('HVALS', KEYS[3])
  if not first or #positions == 0 then
    return first
  end
  local lowest = head.seq
  for _, position in ipairs(positions) do
    lowest = math.min(lowest, tonumber(position))
  end
  if first.seq >= lowest then
    return first
  end
  -- Only when there is something to remove: it would lift Redis' memory limit for the rest of the script.
  redis.call('XTRIM', KEYS[2], 'MINID', entry_id(head.epoch, math.min(lowest, first.seq + MAX_TRIMMED_ENTRIES)))
  return first_entry()
end

local function refusal(head)
  if not head then
    return {'LOG_MISSING'}
  end
  if head.incarnation ~= tonumber(ARGV[1]) or head.epoch ~= tonumber(ARGV[2]) then
    return {'EPOCH_MOVED', decimal(head.incarnation) .. '/' .. decimal(head.epoch)}
  end
  if head.state ~= 'open' then
    return {'LOG_RESTORING'}
  end
  if ARGV[8] ~= '' and ARGV[8] ~= server_life() then
    return {'SERVER_CHANGED'}
  end
  local floor_seq = tonumber(ARGV[3])
  if head.seq < floor_seq then
    return {'LOG_BEHIND', 'it ends at ' .. decimal(head.seq)}
  end
  local digest = digest_at(head, floor_seq)
  if digest and digest ~= ARGV[4] then
    return {'LOG_BEHIND', 'it has another entry at ' .. decimal(floor_seq)}
  end
  if not is_whole(head) then
    return {'LOG_BEHIND', 'it lost its last entries'}
  end
  return nil
end

-- What became of an earlier append with this request id: nil when there is none in the log's history.
local function earlier(head, key, content)
  local stored = redis.call('GET', key)
  if not stored then
    return nil
  end
  local epoch, first, last, tail = string.match(stored, '^(%d+) (%d+) (%d+) ()')
  if string.sub(stored, tail + 20, tail + 39) ~= content then
    return {'REUSED'}
  end
  local digest = string.sub(stored, tail, tail + 19)
  local present = nil
  if tonumber(last) <= head.seq then
    present = digest_at(head, tonumber(last))
  end
  if tonumber(last) > head.seq or (present and present ~= digest) then
    return nil -- a recovery discarded it
  end
  if not present and tonumber(epoch) ~= head.epoch then
    return {'UNKNOWN'} -- too old to tell whether the recovery between then and now kept it
  end
  return {'REPEATED', first, last, digest, epoch}
end

local head = read_head()
local refused = refusal(head)
if refused then
  return refused
end

local first = trim(head)
local kept = kept_bytes(head, first)
local max_bytes = tonumber(ARGV[5])
local replies = {}
local written = false
local cursor = 9

for request = 1, tonumber(ARGV[7]) do
  local key, request_id, content = KEYS[3 + request], ARGV[cursor], ARGV[cursor + 1]
  local revision, payloads = tonumber(ARGV[cursor + 2]), tonumber(ARGV[cursor + 3])
  local reply = earlier(head, key, content)
  if not reply and revision and revision < head.fence then
    reply = {'BEHIND', decimal(head.fence)}
  end
  if not reply then
    local size = 0
    for i = 1, payloads do
      size = size + #ARGV[cursor + 3 + 3 * i] + ENTRY_OVERHEAD_BYTES
    end
    if kept + size > max_bytes then
      reply = {'FULL', decimal(kept), decimal(size)}
    else
      local first_seq = head.seq + 1
      for i = 1, payloads do
        local at = cursor + 3 + 3 * i
        add_entry(head, ARGV[at], ARGV[at - 1], request_id, tonumber(ARGV[at - 2]))
      end
      kept = kept + size
      written = true
      redis.call('SET', key, decimal(head.epoch) .. ' ' .. decimal(first_seq) .. ' ' .. decimal(head.seq) .. ' '
        .. head.digest .. content, 'PX', ARGV[6])
      reply = {'WRITTEN', decimal(first_seq), decimal(head.seq), head.digest, decimal(head.epoch)}
    end
  end
  replies[request] = reply
  cursor = cursor + 4 + 3 * payloads
end

if written then
  write_progress(head)
end
return {'OK', replies}
