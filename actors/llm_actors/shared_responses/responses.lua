-- Stored responses that several replicas share. Each operation is one call of this script.
--
-- A response is a hash and a list. The fields of the hash: s (state: r running, e ended, i interrupted: its replica ended
-- first, l not shareable, d deleted), c (caller), o (owner: the replica that produces the response), h (the packed
-- request), n (number of events in the list), b (generation: identifies this row), x (time of the end by the clock of
-- Redis). The list contains the response's log in packed pieces.
--
-- A replica is a string that expires unless it is renewed (its heartbeat), and a list of orders. An order is c (cancel),
-- d (delete) or f (continue for a follower), followed by the id of a response.
--
-- A string "missing:REPLICA" contains the time when a reader first found the heartbeat of that replica expired. The
-- replica's next renewal removes the string. After an outage a response is therefore not interrupted only because a
-- reader reconnected before its replica did.
--
-- The string "since" contains the time since when this Redis has had responses. For a grace period after that time, Redis
-- may have lost responses that their replicas will write again. During it "?" is returned instead of "there is no such
-- response".
--
-- ARGV[1] is the operation, followed by its arguments:
--   "here", ms                      KEYS: replica, its orders, missing, since. Renews the replica. Returns {"1" if its
--                                   heartbeat existed, else ""}.
--   "sync", ms, order...            KEYS: the same. Renews the replica and removes the given orders. Returns {"1" if its
--                                   heartbeat existed, else "", remaining order...}.
--   "leave"                         KEYS: the same. Ends the replica.
--   "put", replica, ms, heartbeat ms, {begin, generation, caller, head, from, to, piece, end}...
--                                   KEYS: hash and list of each response, replica. Renews the replica if it exists.
--                                   begin: "1" or ""; end: "", "e", "i" or "l". Returns for each response "ok", the number
--                                   of stored events (if it differs from "from"), "gone" (there is no such row), "lost"
--                                   (interrupted, or owned by another replica) or "deleted".
--   "load", caller, base, grace     KEYS: hash, list. Returns {"" or "?"} or {state, generation, time of the end, events,
--                                   head, piece...}. base: the prefix of all keys; grace: the grace period in seconds.
--   "tail", generation, first, base, grace
--                                   KEYS: hash, list. Returns {"d", "" or "?"} or {state, time of the end, events, piece...},
--                                   starting with the piece number "first". Redis may have lost pieces: compare them with
--                                   the number of events.
--   "state", base, grace            KEYS: hash. Returns {state, "" or "?"}.
--   "order", caller, c, d or f, id, prefix of orders
--                                   KEYS: hash, list. Returns {"ok"}, or {""} if there is no such response.
--   "issue", ms, most, heartbeat ms, digest...
--                                   KEYS: the digests of the vendor ids that a caller has received, replica. Renews the
--                                   replica if it exists. Adds the given digests, and removes the oldest above "most".
--   "issued", digest...             KEYS: the digests of the vendor ids. Returns "1" or "" for each digest.
--
-- All keys are in the same slot of a cluster, also those that are built from a prefix: the prefix contains the braces.

local ORDERS_MS, DELETED_MS, MISSING_MS = 60000, 3600000, 86400000
local what = ARGV[1]

local function now()
  local time = redis.call('TIME')
  return string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1000000)
end

-- A full Redis refuses a script whose first write takes memory. If the first write is this deletion of a missing key, the
-- script may continue.
local function begin_writing(key)
  redis.call('DEL', key .. ':none')
end

local function is_over(since, grace)
  return since and tonumber(now()) - tonumber(since) >= tonumber(grace)
end

-- Returns the reply for a response that does not exist: {""}, or {"?"} during the grace period.
local function nothing(base, grace)
  return {is_over(redis.call('GET', base .. 'since'), grace) and '' or '?'}
end

local function has_ended(replica, base, grace)
  if redis.call('EXISTS', base .. 'replica:' .. replica) == 1 then return false end
  local missing = base .. 'missing:' .. replica
  begin_writing(missing)
  redis.call('SET', missing, now(), 'NX', 'PX', MISSING_MS)
  return is_over(redis.call('GET', missing), grace)
end

-- Returns the state of a response and the time of its end. Marks a running response as interrupted if its replica has
-- ended.
local function settled(key, base, grace)
  local found = redis.call('HMGET', key, 's', 'o', 'x')
  if found[1] == 'r' and has_ended(found[2], base, grace) then
    found[1], found[3] = 'i', now()
    redis.call('HSET', key, 's', 'i', 'x', found[3])
  end
  return found[1], found[3] or '0'
end

local function put(hash, list, at, replica, ms)
  local begin, generation, caller, head = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local from, to, piece, ending = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]), ARGV[at + 6], ARGV[at + 7]
  local found = redis.call('HMGET', hash, 's', 'o', 'n', 'b')
  local state, owner, count, known = found[1], found[2], tonumber(found[3] or '0'), found[4]
  if state == 'd' then return 'deleted' end
  if state and (state == 'i' or owner ~= replica) then return 'lost' end
  if begin ~= '1' and count > 0 and redis.call('EXISTS', list) == 0 then return 'gone' end -- Redis has lost the list
  if begin == '1' and known ~= generation then
    redis.call('DEL', hash, list)
    redis.call('HSET', hash, 's', 'r', 'c', caller, 'o', replica, 'h', head, 'n', 0, 'b', generation)
    count = 0
  elseif not state then
    return 'gone'
  end
  if ending == 'l' then
    redis.call('DEL', list)
    redis.call('HSET', hash, 's', 'l', 'h', '')
  elseif to > count then
    if from ~= count then return tostring(count) end
    redis.call('RPUSH', list, piece)
    redis.call('HSET', hash, 'n', to)
  end
  if ending == 'e' or ending == 'i' then redis.call('HSET', hash, 's', ending, 'x', now()) end
  redis.call('PEXPIRE', hash, ms)
  redis.call('PEXPIRE', list, ms)
  return 'ok'
end

local answer = {}
if what == 'sync' or what == 'here' then
  answer = {redis.call('EXISTS', KEYS[1]) == 1 and '1' or ''}
  begin_writing(KEYS[1])
  redis.call('SET', KEYS[1], '1', 'PX', ARGV[2])
  redis.call('SET', KEYS[4], now(), 'NX')
  redis.call('DEL', KEYS[3])
  for place = 3, #ARGV do redis.call('LREM', KEYS[2], 1, ARGV[place]) end
  if what == 'sync' then
    for _, order in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do answer[#answer + 1] = order end
  end
elseif what == 'leave' then
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('SET', KEYS[3], '0', 'PX', MISSING_MS)
elseif what == 'put' then
  redis.call('PEXPIRE', KEYS[#KEYS], ARGV[4])
  for number = 1, (#KEYS - 1) / 2 do
    answer[number] = put(KEYS[2 * number - 1], KEYS[2 * number], 5 + 8 * (number - 1), ARGV[2], ARGV[3])
  end
elseif what == 'load' then
  local found = redis.call('HMGET', KEYS[1], 's', 'c', 'b', 'h', 'n', 'o')
  if found[1] == 'd' then return {''} end
  if not found[1] or found[2] ~= ARGV[2] then return nothing(ARGV[3], ARGV[4]) end
  if found[1] == 'l' and has_ended(found[6], ARGV[3], ARGV[4]) then return {''} end
  local state, ended = settled(KEYS[1], ARGV[3], ARGV[4])
  answer = {state, found[3], ended, found[5], found[4]}
  for _, piece in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do answer[#answer + 1] = piece end
elseif what == 'tail' then
  local found = redis.call('HMGET', KEYS[1], 's', 'b', 'n')
  if found[1] == 'd' then return {'d'} end
  if not found[1] or found[2] ~= ARGV[2] then return nothing(ARGV[4], ARGV[5]) end
  local state, ended = settled(KEYS[1], ARGV[4], ARGV[5])
  answer = {state, ended, found[3]}
  for _, piece in ipairs(redis.call('LRANGE', KEYS[2], ARGV[3], -1)) do answer[#answer + 1] = piece end
elseif what == 'state' then
  local state = redis.call('HGET', KEYS[1], 's')
  answer = state and {state} or nothing(ARGV[2], ARGV[3])
elseif what == 'order' then
  local found = redis.call('HMGET', KEYS[1], 's', 'c', 'o')
  if not found[1] or found[1] == 'd' or found[2] ~= ARGV[2] then return {''} end
  if ARGV[3] == 'd' then
    redis.call('DEL', KEYS[1], KEYS[2])
    redis.call('HSET', KEYS[1], 's', 'd')
    redis.call('PEXPIRE', KEYS[1], DELETED_MS)
  end
  if ARGV[3] == 'd' or found[1] == 'r' then
    local orders = ARGV[5] .. found[3]
    redis.call('RPUSH', orders, ARGV[3] .. ARGV[4])
    redis.call('PEXPIRE', orders, ORDERS_MS)
  end
  answer = {'ok'}
elseif what == 'issue' then
  local at = now()
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
  for place = 5, #ARGV do redis.call('ZADD', KEYS[1], at, ARGV[place]) end
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[3]))
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif what == 'issued' then
  for place = 2, #ARGV do answer[place - 1] = redis.call('ZSCORE', KEYS[1], ARGV[place]) and '1' or '' end
end
return answer
