-- Gives an upload that is complete the name of its artifact. One that is kept for good stays so.
-- KEYS: upload, artifact
-- ARGV: for how many seconds it is kept
-- Returns 1, or 0 when the upload is gone: it took too long, or Redis lost it.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local is_kept = redis.call('PTTL', KEYS[2]) == -1
redis.call('RENAME', KEYS[1], KEYS[2])
if is_kept then
  redis.call('PERSIST', KEYS[2])
else
  redis.call('EXPIRE', KEYS[2], ARGV[1])
end
return 1
