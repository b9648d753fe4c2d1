-- Reads the whole registry at one revision.
-- KEYS: cluster, revision, registry, events
-- ARGV: incarnation, revision and digest that the caller knows, or three empty strings
-- Returns nil without a cluster, else {cluster id, incarnation, revision, digest, digest of the caller's revision,
-- fields}. The fifth is nil when the events no longer tell, '' when they tell that the caller's revision never was.
-- The last is nil when the caller knows it already.
local cluster = redis.call('HMGET', KEYS[1], 'cluster_id', 'incarnation')
if not cluster[1] then
  return false
end
local head = redis.call('HMGET', KEYS[2], 'revision', 'digest')
local revision, digest = head[1] or '0', head[2] or ''

local known = false
if ARGV[1] == cluster[2] then
  local id = ARGV[1] .. '-' .. ARGV[2]
  local event = redis.call('XREVRANGE', KEYS[4], id, '-', 'COUNT', 1)[1]
  if event then
    known = event[1] == id and event[2][2] or ''
  end
end

local fields = false
if not (ARGV[1] == cluster[2] and ARGV[2] == revision and ARGV[3] == digest) then
  fields = redis.call('HGETALL', KEYS[3])
end
return {cluster[1], cluster[2], revision, digest, known, fields}
