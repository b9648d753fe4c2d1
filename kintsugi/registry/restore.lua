-- Replaces a registry that was lost, went back or forked by the best one that the cluster's members still know.
-- KEYS: cluster, revision, registry, events, recovery
-- ARGV: recovery token, cluster id, incarnation, revision and digest of the best, then field and value of each record
-- Returns {'restored', incarnation, revision, digest}, {'lease'} when the token does not hold the recovery lease,
-- {'foreign', cluster id}, or {'newer', incarnation, revision} when the present registry continues the best.
if redis.call('GET', KEYS[5]) ~= ARGV[1] then
  return {'lease'}
end
local cluster = redis.call('HMGET', KEYS[1], 'cluster_id', 'incarnation')
local head = redis.call('HMGET', KEYS[2], 'revision', 'digest')
local present_revision = tonumber(head[1] or '0')
local best_incarnation, best_revision = tonumber(ARGV[3]), tonumber(ARGV[4])

-- Whether the present registry, of the best's incarnation, has the best in its history.
local function continues_best()
  if present_revision < best_revision then
    return false
  end
  if present_revision == best_revision then
    return head[2] == ARGV[5]
  end
  local id = ARGV[3] .. '-' .. ARGV[4]
  local event = redis.call('XREVRANGE', KEYS[4], id, '-', 'COUNT', 1)[1]
  if not event then
    return true -- trimmed: far ahead, which a fork within the lease of a recovery is not
  end
  return event[1] == id and event[2][2] == ARGV[5]
end

if cluster[1] then
  if cluster[1] ~= ARGV[2] then
    return {'foreign', cluster[1]}
  end
  local incarnation = tonumber(cluster[2])
  if incarnation > best_incarnation or (incarnation == best_incarnation and continues_best()) then
    return {'newer', cluster[2], head[1] or '0'}
  end
end

local incarnation = string.format('%.0f', best_incarnation + 1)
-- Above a fork's revision too, so that the revision alone never goes back.
local revision = string.format('%.0f', math.max(best_revision, present_revision) + 1)
local parts = {'restore', ARGV[5], incarnation .. '-' .. revision}
for i = 6, #ARGV, 2 do
  parts[#parts + 1] = #ARGV[i] .. ':' .. #ARGV[i + 1] .. ':' .. ARGV[i] .. ARGV[i + 1]
end
local digest = redis.sha1hex(table.concat(parts, '\n'))
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
for i = 6, #ARGV, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
end
redis.call('XADD', KEYS[4], incarnation .. '-' .. revision, 'digest', digest)
redis.call('HSET', KEYS[2], 'revision', revision, 'digest', digest)
redis.call('HSET', KEYS[1], 'cluster_id', ARGV[2], 'incarnation', incarnation)
return {'restored', incarnation, revision, digest}
