-- The responses that several processes cache together, and which of them makes one that is not there yet.
--
-- An entry is a hash, v: the response, packed; t: when it was stored, by this server's clock. A flight is a string, the
-- process that makes the response. Both expire.
--
-- KEYS     for "open": a key that shows whether one can write; for "get": entries; for "claim": an entry and its flight;
--          for "put": entries; for "release" and "renew": flights
-- ARGV     "open" | "get" | "claim", process, ms | "put", ms, value, ... | "release", process | "renew", process, ms
-- returns  for "get": age in seconds and value of each, both empty for what is missing; for "claim": the same, and
--          "found", "ours" (make it) or "theirs" (another process makes it); otherwise nothing

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

local function entry(key)
  local found = redis.call('HMGET', key, 'v', 't')
  if not found[1] or not found[2] then return '', '' end
  return string.format('%.6f', math.max(0, now - tonumber(found[2]))), found[1]
end

local what, answer = ARGV[1], {}
if what == 'open' then
  redis.call('SET', KEYS[1], '1', 'PX', 60000)
elseif what == 'get' then
  for _, key in ipairs(KEYS) do
    local age, value = entry(key)
    answer[#answer + 1] = age
    answer[#answer + 1] = value
  end
elseif what == 'claim' then
  local age, value = entry(KEYS[1])
  local state = 'found'
  if value == '' then
    state = redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3]) and 'ours' or 'theirs'
  end
  answer = {age, value, state}
elseif what == 'put' then
  for place, key in ipairs(KEYS) do
    redis.call('HSET', key, 'v', ARGV[place + 2], 't', string.format('%.6f', now))
    redis.call('PEXPIRE', key, ARGV[2])
  end
else
  for _, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[2] then
      if what == 'release' then redis.call('DEL', key) else redis.call('PEXPIRE', key, ARGV[3]) end
    end
  end
end
return answer
