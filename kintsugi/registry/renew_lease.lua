-- Gives a member a lease that ends by the server's clock, or replaces the one it has.
-- KEYS: leases   ARGV: member, time to live in ms, what the member tells about itself
local time = redis.call('TIME')
local ends_ms = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', ends_ms) .. ' ' .. ARGV[3])
return 1
