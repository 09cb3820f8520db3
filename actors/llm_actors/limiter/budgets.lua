-- Budgets that several processes share. One call handles a whole batch of `budget_wire.py`.
--
-- KEYS     a hash: since = the time when this server first heard of budgets, or was last found to have lost some;
--          then one hash for each window of a budget: for each process p:ID = "usd tokens share_usd share_tokens question
--          at gone". An amount is two numbers: millionths of a dollar, and tokens. The first amount is what the process has
--          spent and reserved. The second is its share, which it may spend without asking; the share includes the first.
--          question = the number of the last question. at = the time of the last report by this server's clock, or 0 if
--          only other processes reported these amounts. gone = 1: the process has ended, and the amounts are final.
-- ARGV[1]  {process, number of the question, 1 if the process ends, {window, ...}, {claim, ...}}. A window is
--              {limit (-1: none), own, share, the last paid reservation, the last answered question about this window,
--               {{ID, own, share, gone}, ...} the other processes as this process remembers them,
--               {{ID, own}, ...} ended processes by its ledger, milliseconds to keep the window}
--          and a claim is {{window from 0, amount}, ...}. It is paid from all these windows or from none.
-- returns  {{{{ID, own, share, gone}, ...} the others (without ended processes that spent nothing), share, spare,
--            1 if complete}, ... for each window},
--          {the first window (from 1) that has too little left, or 0, ... for each claim}; nothing if this server has
--          already answered a later question.
--
-- A process reports absolute amounts. A server that has lost everything therefore receives them again. Until all known
-- processes have reported, no process gets more than its share. For all other processes, a share counts as spent until
-- its process reports a smaller one, or until a ledger contains the final spending.

local COMPLETE_MS = 4000 -- before that, some processes may not have reconnected to a restarted server
local GIVE_UP_MS = 30000 -- after that, a process that has not reported is not awaited: its remembered share counts
local SEEN_MS = 30000 -- a process that reported within this time is expected to need a share

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

-- Returns the part of `free` that is set aside for one process. With n processes it is 1 / (n + 1), rounded down, and 0 if
-- it would be smaller than one reservation (`least`).
local function spare(free, processes, least)
  local part = math.floor(free / (processes + 1))
  return least > 0 and part >= least and part or 0
end

-- Updates an entry with the amounts that another process remembers. The process of the entry itself has not reported since
-- this server lost its data.
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
