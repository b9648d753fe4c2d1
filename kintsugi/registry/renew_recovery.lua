-- Prolongs the recovery lease if it is still the caller's.
-- KEYS: recovery   ARGV: token, time to live in ms
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
