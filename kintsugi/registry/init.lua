-- Creates a cluster where there is none.
-- KEYS: cluster, revision, registry, events
-- ARGV: cluster id, then field and value of each first record
-- Returns 'created', 'exists' for the same cluster, 'foreign' and its id for another, or 'remains' when a part of a
-- registry is there without its cluster: only recovery may judge what that is worth.
local present = redis.call('HGET', KEYS[1], 'cluster_id')
if present then
  return {present == ARGV[1] and 'exists' or 'foreign', present}
end
if redis.call('EXISTS', KEYS[2], KEYS[3], KEYS[4]) > 0 then
  return {'remains', ''}
end
local parts = {'init', ARGV[1]}
for i = 2, #ARGV, 2 do
  parts[#parts + 1] = #ARGV[i] .. ':' .. #ARGV[i + 1] .. ':' .. ARGV[i] .. ARGV[i + 1]
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
end
local digest = redis.sha1hex(table.concat(parts, '\n'))
redis.call('XADD', KEYS[4], '1-1', 'digest', digest)
redis.call('HSET', KEYS[2], 'revision', '1', 'digest', digest)
redis.call('HSET', KEYS[1], 'cluster_id', ARGV[1], 'incarnation', '1')
return {'created', ARGV[1]}
