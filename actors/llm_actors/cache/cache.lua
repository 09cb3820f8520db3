-- The cache that several processes share. For a missing response, it also records which process produces it.
--
-- An entry is a hash. v: the packed response; t: the time when it was stored, by this server's clock. A flight is a string:
-- the id of the process that produces the response. Both expire.
--
-- KEYS     for "open": a key that does not exist; for "get": entries; for "claim": an entry and its flight;
--          for "put": entries; for "release" and "renew": flights
-- ARGV     "open" | "get", bytes | "claim", process, ms | "put", ms, value, ... | "release", process | "renew", process, ms
-- returns  for "get": the age in seconds and the value for each key, both empty for a missing entry; it stops after the
--          given number of bytes, so that the last keys may have no result;
--          for "claim": age and value, and "found", "ours" (the caller produces it) or "theirs" (another process does);
--          for "put": "1" for each stored value, "" if there was no memory for it; otherwise nothing

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

local function entry(key)
  local found = redis.call('HMGET', key, 'v', 't')
  if not found[1] or not found[2] then return '', '' end
  return string.format('%.6f', math.max(0, now - tonumber(found[2]))), found[1]
end

-- Runs a command that takes memory. Returns nil if no memory is left.
local function if_room(...)
  local done = redis.pcall(...)
  if type(done) ~= 'table' or not done.err then return done end
  if string.find(done.err, 'OOM', 1, true) then return nil end
  return redis.call(...)
end

local what, answer = ARGV[1], {}
if what == 'open' then
  redis.call('DEL', KEYS[1])  -- tests whether writing is allowed; takes no memory
elseif what == 'get' then
  local left = tonumber(ARGV[2])
  for _, key in ipairs(KEYS) do
    if left <= 0 then break end
    local age, value = entry(key)
    answer[#answer + 1] = age
    answer[#answer + 1] = value
    left = left - #value
  end
elseif what == 'claim' then
  local age, value = entry(KEYS[1])
  local state = 'found'
  if value == '' then
    local maker = redis.call('GET', KEYS[2])
    state = (not maker or maker == ARGV[2]) and 'ours' or 'theirs'
    if state == 'ours' then if_room('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) end
  end
  answer = {age, value, state}
elseif what == 'put' then
  for place, key in ipairs(KEYS) do
    local is_stored = if_room('HSET', key, 'v', ARGV[place + 2], 't', string.format('%.6f', now))
    if is_stored then redis.call('PEXPIRE', key, ARGV[2]) end
    answer[place] = is_stored and '1' or ''
  end
else
  for _, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[2] then
      if what == 'release' then redis.call('DEL', key) else redis.call('PEXPIRE', key, ARGV[3]) end
    end
  end
end
return answer
