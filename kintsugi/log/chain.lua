-- The digest chain, as in chain.py: sha1(previous .. decimal seq .. sha1(payload)), raw bytes.

-- Lua would print large numbers in scientific notation.
local function decimal(number)
  return string.format('%.0f', number)
end

local function raw_sha1(text)
  local hex = redis.sha1hex(text)
  return struct.pack('>I4I4I4I4I4',
    tonumber(string.sub(hex, 1, 8), 16), tonumber(string.sub(hex, 9, 16), 16),
    tonumber(string.sub(hex, 17, 24), 16), tonumber(string.sub(hex, 25, 32), 16),
    tonumber(string.sub(hex, 33, 40), 16))
end

local function extend(digest, seq, payload_digest)
  return raw_sha1(digest .. decimal(seq) .. payload_digest)
end
