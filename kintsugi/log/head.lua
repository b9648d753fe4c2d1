-- What the scripts share about a log: KEYS[1] is its head, KEYS[2] its stream, KEYS[3] its positions.
-- The head is a hash: incarnation, epoch, state (open or restoring), seq and digest of the last entry, bytes ever
-- appended in this epoch, base_seq and base_digest of what came before the stream's first entry, and fence, the least
-- registry revision that the writer of a request must know (absent: any).
-- An entry has the id epoch-seq, of its last record, and, in this order, the fields p (payload), d (digest), b (bytes
-- appended before it in this epoch), r (request id), n (number of its records; entries of earlier releases lack it and
-- have one).

-- What an entry costs beyond its payload: its id, digest, request id and the stream's own framing.
local ENTRY_OVERHEAD_BYTES = 128
-- Trimming more at once would hold up everybody else on this server.
local MAX_TRIMMED_ENTRIES = 20000

local function read_head()
  local field = redis.call('HMGET', KEYS[1], 'incarnation', 'epoch', 'state', 'seq', 'digest', 'bytes',
    'base_seq', 'base_digest', 'fence')
  if not field[1] then
    return nil
  end
  return {
    incarnation = tonumber(field[1]), epoch = tonumber(field[2]), state = field[3], seq = tonumber(field[4]),
    digest = field[5], bytes = tonumber(field[6]), base_seq = tonumber(field[7]), base_digest = field[8],
    fence = tonumber(field[9] or 0),
  }
end

local function entry_id(epoch, seq)
  return decimal(epoch) .. '-' .. decimal(seq)
end

local function parse_entry(found)
  if not found[1] then
    return nil
  end
  local fields = found[1][2]
  local seq = tonumber(string.match(found[1][1], '%-(%d+)$'))
  return {seq = seq, first_seq = seq + 1 - tonumber(fields[10] or 1), id = found[1][1], digest = fields[4],
    bytes_before = tonumber(fields[6])}
end

local function first_entry()
  return parse_entry(redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1))
end

-- The digest of the entry that holds `seq`, nil when it is no longer kept, or beyond the log. An entry that ends
-- elsewhere than one who asks about the end of his is another one, and has another digest.
local function digest_at(head, seq)
  if seq == head.seq then
    return head.digest
  end
  if seq == head.base_seq then
    return head.base_digest
  end
  local entry = parse_entry(redis.call('XRANGE', KEYS[2], entry_id(head.epoch, seq), '+', 'COUNT', 1))
  return entry and entry.first_seq <= seq and entry.digest or nil
end

-- Whether the stream ends where the head says. Trimming keeps the last entry, so only a loss breaks this.
local function is_whole(head)
  local last = parse_entry(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1))
  if not last then
    return head.seq == head.base_seq
  end
  return last.id == entry_id(head.epoch, head.seq) and last.digest == head.digest
end

local function add_entry(head, payload, payload_digest, request_id, records)
  head.seq = head.seq + records
  head.digest = extend(head.digest, head.seq, payload_digest)
  redis.call('XADD', KEYS[2], entry_id(head.epoch, head.seq),
    'p', payload, 'd', head.digest, 'b', decimal(head.bytes), 'r', request_id, 'n', decimal(records))
  head.bytes = head.bytes + #payload + ENTRY_OVERHEAD_BYTES
end

local function write_progress(head)
  redis.call('HSET', KEYS[1], 'seq', decimal(head.seq), 'digest', head.digest, 'bytes', decimal(head.bytes))
end

local function kept_bytes(head, first)
  return first and head.bytes - first.bytes_before or 0
end

-- Which life of which server this is. A restart or failover, after which a log may have lost entries, begins another.
local function server_life()
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
  local history = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or ''
  return run .. '/' .. history
end
