-- The budgets that several processes share: what `budget_wire.py` asks, in one step for a whole batch.
--
-- KEYS     a hash: since = when this server began to hear of budgets, or was found to have forgotten some; then
--          the window of one budget each, a hash: for each process p:ID = "usd tokens share_usd share_tokens question at
--          gone". An amount is two numbers, millionths of a dollar and tokens: what the process has spent and reserved,
--          and its share, which is what it may have without asking (the former included). at = when it told that, by this
--          server's clock; 0: others remembered it. gone = 1: it is no more, and this is all it had.
-- ARGV[1]  {process, number of the question, 1 if it leaves, {window, ...}, {claim, ...}}. A window is
--              {limit or -1 for none, own, share, the last reservation paid, the last question about it that was answered,
--               {{ID, own, share, gone}, ...} others as this process remembers them,
--               {{ID, own}, ...} processes that are no more, by its ledger, milliseconds to keep it}
--          and a claim is {{window from 0, amount}, ...}: it is paid from all of them or from none.
-- returns  {{{{ID, own, share, gone}, ...} the others (who is gone and had nothing is left out), share, spare,
--            1 if complete}, ... of each window},
--          {the window from 1 that has too little left, or 0, ... of each claim}; nothing if a later question was answered.
--
-- What a process has is told in absolute numbers, so a server that has forgotten everything hears it again. Until it has
-- heard of all, nobody gets more than the share that it had. A share counts as spent for all others until its process
-- tells otherwise, or a ledger tells all that it spent.

local COMPLETE_MS = 4000 -- sooner not all have found a server that is there again
local GIVE_UP_MS = 30000 -- who is still not there is not waited for: its share counts as it is remembered
local SEEN_MS = 30000 -- a process that was here since then is expected to need a share

local process, question, leaves, windows, claims = unpack(cmsgpack.unpack(ARGV[1]))
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function read(raw)
  local n = {}
  for digits in raw:gmatch('%d+') do n[#n + 1] = tonumber(digits) end
  return {own = {n[1] or 0, n[2] or 0}, share = {n[3] or 0, n[4] or 0}, question = n[5] or 0, at = n[6] or 0,
    gone = n[7] or 0}
end

local function write(key, who, e)
  redis.call('HSET', key, 'p:' .. who, string.format('%.0f %.0f %.0f %.0f %.0f %.0f %.0f', e.own[1], e.own[2], e.share[1],
    e.share[2], e.question, e.at, e.gone))
end

local function is_nothing(amount) return amount[1] <= 0 and amount[2] <= 0 end

local function most(a, b) return {math.max(a[1], b[1]), math.max(a[2], b[2])} end

-- What a process is to have aside of `free`. All together have half of it then. Less than a reservation is of no use.
local function spare(free, processes, least)
  local part = math.floor(free / (processes + 1))
  return least > 0 and part >= least and part or 0
end

-- What another process remembers of one that has not told anything itself since this server forgot.
local function remember(e, own, share, gone)
  if gone == 1 and e.gone == 0 then e.own, e.share, e.gone = own, share, 1
  elseif gone == e.gone then e.own, e.share = most(e.own, own), most(e.share, share) end
end

local since = tonumber(redis.call('HMGET', KEYS[1], 'since')[1])
if not since or since > now then since = now end
local kept = {}
for n, said in ipairs(windows) do
  local had, raw = {}, redis.call('HGETALL', KEYS[n + 1])
  for i = 1, #raw, 2 do had[raw[i]:sub(3)] = read(raw[i + 1]) end
  local mine = had[process]
  if mine and mine.question >= question then return cmsgpack.pack({}) end
  if (mine and mine.question or 0) < said[5] then since = now end
  had[process] = nil
  kept[n] = {key = KEYS[n + 1], limit = said[1], own = said[2], share = said[3], least = said[4], had = had, ms = said[8]}
end
redis.call('HSET', KEYS[1], 'since', string.format('%.0f', since))
redis.call('PEXPIRE', KEYS[1], 3456000000)

for n, w in ipairs(kept) do
  local function change(who, how)
    if who == process then return end
    local e = w.had[who] or read('')
    how(e)
    w.had[who] = e
    write(w.key, who, e)
  end
  for _, each in ipairs(windows[n][6]) do
    local e = w.had[each[1]]
    if not e or e.at < since then change(each[1], function(e) remember(e, each[2], each[3], each[4]) end) end
  end
  for _, each in ipairs(windows[n][7]) do
    if w.had[each[1]] or not is_nothing(each[2]) then
      change(each[1], function(e) e.own = most(e.own, each[2]); e.share, e.gone = e.own, 1 end)
    end
  end
  w.processes, w.complete, w.taken = 1, now - since >= COMPLETE_MS, {0, 0}
  for _, e in pairs(w.had) do
    if e.gone == 0 and e.at > now - SEEN_MS then w.processes = w.processes + 1 end
    if e.gone == 0 and e.at < since then w.complete = w.complete and now - since >= GIVE_UP_MS end
    local has = most(e.own, e.share)
    w.taken = {w.taken[1] + has[1], w.taken[2] + has[2]}
  end
end

local function fits(w, amount)
  for d = 1, 2 do
    local own = w.own[d] + amount[d]
    if w.limit[d] >= 0 and own > w.share[d] and not (w.complete and w.taken[d] + own <= w.limit[d]) then return false end
  end
  return true
end

local refused = {}
for c, claim in ipairs(claims) do
  refused[c] = 0
  for _, part in ipairs(claim) do
    if refused[c] == 0 and not fits(kept[part[1] + 1], part[2]) then refused[c] = part[1] + 1 end
  end
  for _, part in ipairs(refused[c] == 0 and claim or {}) do
    local w = kept[part[1] + 1]
    w.own = {w.own[1] + part[2][1], w.own[2] + part[2][2]}
    for d = 1, 2 do if part[2][d] > 0 then w.least[d] = part[2][d] end end
  end
end

local told = {}
for n, w in ipairs(kept) do
  local keep, others = {0, 0}, {}
  w.share = most(w.share, w.own)
  for d = 1, 2 do
    if leaves == 1 then w.share[d] = w.own[d]
    elseif not w.complete then keep[d] = w.share[d] - w.own[d]
    elseif w.limit[d] >= 0 then
      keep[d] = spare(w.limit[d] - w.taken[d] - w.own[d], w.processes, w.least[d])
      w.share[d] = math.max(w.share[d], w.own[d] + keep[d])
    end
  end
  write(w.key, process, {own = w.own, share = w.share, question = question, at = now, gone = leaves})
  redis.call('PEXPIRE', w.key, w.ms)
  for who, e in pairs(w.had) do
    if e.gone == 0 or not is_nothing(most(e.own, e.share)) then others[#others + 1] = {who, e.own, e.share, e.gone} end
  end
  told[n] = {others, w.share, keep, w.complete and 1 or 0}
end
return cmsgpack.pack({told, refused})
