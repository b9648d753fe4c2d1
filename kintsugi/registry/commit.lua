-- Changes the registry if it is still what the caller read.
-- KEYS: cluster, revision, registry, events
-- ARGV: cluster id, incarnation, revision, digest, number of events to keep, then 'set' or 'delete', field and value of
-- each change, ordered by field
-- Returns {'committed', revision, digest}, {'missing'}, {'foreign', cluster id} or {'moved', revision}.
local cluster = redis.call('HMGET', KEYS[1], 'cluster_id', 'incarnation')
if not cluster[1] then
  return {'missing'}
end
if cluster[1] ~= ARGV[1] then
  return {'foreign', cluster[1]}
end
local head = redis.call('HMGET', KEYS[2], 'revision', 'digest')
if cluster[2] ~= ARGV[2] or (head[1] or '0') ~= ARGV[3] or (head[2] or '') ~= ARGV[4] then
  return {'moved', head[1] or '0'}
end

local revision = string.format('%.0f', tonumber(ARGV[3]) + 1)
local id = ARGV[2] .. '-' .. revision
local parts = {ARGV[4], id}
for i = 6, #ARGV, 3 do
  parts[#parts + 1] = ARGV[i] .. ':' .. #ARGV[i + 1] .. ':' .. #ARGV[i + 2] .. ':' .. ARGV[i + 1] .. ARGV[i + 2]
end
local digest = redis.sha1hex(table.concat(parts, '\n'))

-- First, because it is the only command here that can fail: scripts are not rolled back.
redis.call('XADD', KEYS[4], 'MAXLEN', '=', ARGV[5], id, 'digest', digest)
for i = 6, #ARGV, 3 do
  if ARGV[i] == 'set' then
    redis.call('HSET', KEYS[3], ARGV[i + 1], ARGV[i + 2])
  else
    redis.call('HDEL', KEYS[3], ARGV[i + 1])
  end
end
redis.call('HSET', KEYS[2], 'revision', revision, 'digest', digest)
return {'committed', revision, digest}
