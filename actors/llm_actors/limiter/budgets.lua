-- The budgets that several processes share: what `budget_coordinator.py` asks, in one step for a whole batch.
--
-- KEYS     a hash: since = when this server first heard of any budget; then
--          the window of one budget each, a hash: for each process p:ID = "millionths of a dollar, tokens" that it has
--          spent and reserved, and seen:ID = when it was last here, by this server's clock.
-- ARGV[1]  {process, {window, ...}, {claim, ...}}. A window is
--              {limit in millionths or -1, limit in tokens or -1, own millionths, own tokens,
--               {{ID, millionths, tokens}, ...} of processes that have gone, milliseconds to keep it}
--          and a claim is {{window from 0, millionths, tokens}, ...}: it is paid from all of them or from none.
-- returns  {seconds since it first heard of any budget,
--          {{what others have in millionths, in tokens, how many share it}, ... of each window},
--          {the window from 1 that has too little left, or 0, ... of each claim}
--
-- What a process has is told in absolute numbers, so a server that has forgotten everything hears it again. What a
-- process had that is not there any more stays: nobody knows what became of its calls.

local SEEN_SECONDS = 30

local process, windows, claims = unpack(cmsgpack.unpack(ARGV[1]))
local now = tonumber(redis.call('TIME')[1])
local kept = {}

redis.call('HSETNX', KEYS[1], 'since', now)
redis.call('PEXPIRE', KEYS[1], 3456000000)
local since = tonumber(redis.call('HGET', KEYS[1], 'since')) or now

local function whole(number) return string.format('%.0f', number) end

for n, said in ipairs(windows) do
  local w = {usd_limit = said[1], tokens_limit = said[2], usd = said[3], tokens = said[4], others_usd = 0,
    others_tokens = 0, processes = 1, key = KEYS[n + 1], ms = said[6]}
  local raw, had, seen = redis.call('HGETALL', w.key), {}, {}
  for i = 1, #raw, 2 do
    local kind, who = raw[i]:match('^(%a+):(.*)$')
    if kind == 'p' then
      local usd, tokens = raw[i + 1]:match('^(%d+) (%d+)$')
      had[who] = {tonumber(usd) or 0, tonumber(tokens) or 0}
    elseif kind == 'seen' then seen[who] = tonumber(raw[i + 1]) or 0 end
  end
  for _, gone in ipairs(said[5]) do
    local known = had[gone[1]] or {0, 0}
    if gone[2] > known[1] or gone[3] > known[2] then
      known = {math.max(gone[2], known[1]), math.max(gone[3], known[2])}
      redis.call('HSET', w.key, 'p:' .. gone[1], whole(known[1]) .. ' ' .. whole(known[2]))
    end
    had[gone[1]] = known
  end
  for who, each in pairs(had) do
    if who ~= process then
      w.others_usd, w.others_tokens = w.others_usd + each[1], w.others_tokens + each[2]
    end
  end
  for who, at in pairs(seen) do
    if who ~= process and at > now - SEEN_SECONDS then w.processes = w.processes + 1 end
  end
  kept[n] = w
end

local refused = {}
for c, claim in ipairs(claims) do
  refused[c] = 0
  for _, part in ipairs(claim) do
    local w = kept[part[1] + 1]
    local usd, tokens = w.others_usd + w.usd + part[2], w.others_tokens + w.tokens + part[3]
    if refused[c] == 0 and (w.usd_limit >= 0 and usd > w.usd_limit or w.tokens_limit >= 0 and tokens > w.tokens_limit) then
      refused[c] = part[1] + 1
    end
  end
  if refused[c] == 0 then
    for _, part in ipairs(claim) do
      local w = kept[part[1] + 1]
      w.usd, w.tokens = w.usd + part[2], w.tokens + part[3]
    end
  end
end

local told = {}
for n, w in ipairs(kept) do
  redis.call('HSET', w.key, 'p:' .. process, whole(w.usd) .. ' ' .. whole(w.tokens), 'seen:' .. process, whole(now))
  redis.call('PEXPIRE', w.key, w.ms)
  told[n] = {w.others_usd, w.others_tokens, w.processes}
end
return cmsgpack.pack({math.max(0, now - since), told, refused})
