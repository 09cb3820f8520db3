-- The ledger of limits that several processes share. One call handles a batch of operations from `redis.py`.
--
-- KEYS     first the clock, a hash: wall (the last reading of this server's clock), now (the ledger's time in seconds);
--          then one account for each limit, a hash: r, t (the windows of requests and of tokens), till (nothing goes
--          before), next and paced (after a pause: until paced, nothing goes before next), born (when the account was
--          created), for each process s:ID = "requests it has in progress, until when", and for each held model m:MODEL = until when.
-- ARGV[1]  {process, the latest time that the clock can show now, by the clock of the process (0: unknown),
--          {{requests per minute, tokens per minute, concurrency, requests in progress here, burst}, ...}, {operation, ...}},
--          where 0 is no limit, and an operation is one of
--              {"claim", {account, ...}, tokens, patience, model of the first account or ""}
--              {"end", account, born, second, request back, tokens charged, tokens used}
--              {"hold", account, seconds, model or "" for all models}
-- returns  {the ledger's time, {reply, ...}}, a reply for each claim: {charged, seconds to wait, index of the account
--          that it waits for, seconds until that account allows any request, {{born, second}, ...},
--          seconds for which the model is held}
--
-- The arithmetic of a window is that of `window.py`, which explains it.

local KEEP_SECONDS, LAP_SECONDS, LONGEST_PAUSE, PACED_SECONDS = 61.5, 61, 3600, 60
local HELD_SECONDS, CONCURRENCY_WAIT, KEPT_MS = 15, 0.1, 604800000
local MAX_MODELS, LONGEST_HOLD = 256, 300 -- callers can invent names of models

local said = cmsgpack.unpack(ARGV[1])
local held_field = 's:' .. said[1]

local function exact(number) return string.format('%.17g', number) end

-- Return the ledger's time. This server's clock may be changed. If it was set back, no time has passed. If it was set
-- forward, no more time has passed than by the clock of the calling process, which has measured since its last call. Only
-- a process that calls for the first time has to believe the server's clock.
local function advance(key)
  local time = redis.call('TIME')
  local wall = tonumber(time[1]) + tonumber(time[2]) / 1e6
  local kept, now = redis.call('HMGET', key, 'wall', 'now'), wall
  if kept[1] and kept[2] then
    now = tonumber(kept[2])
    local passed = math.max(0, wall - tonumber(kept[1]))
    if said[2] > 0 then passed = math.max(0, math.min(passed, said[2] - now)) end
    now = now + passed
  end
  redis.call('HSET', key, 'wall', exact(wall), 'now', exact(now))
  redis.call('PEXPIRE', key, KEPT_MS)
  return now
end

local now = advance(KEYS[1])
local this_second = math.floor(now)

local function add(w, second, units)
  if units <= 0 then return end
  if not w.used[second] then
    w.used[second] = 0
    local n = #w.seconds
    while n > 0 and w.seconds[n] > second do
      w.seconds[n + 1] = w.seconds[n]
      n = n - 1
    end
    w.seconds[n + 1] = second
  end
  w.used[second] = w.used[second] + units
  w.total = w.total + units
end

local function pay(w, second)
  local paid = math.min(w.owed, math.max(0, w.limit - w.total))
  w.owed = w.owed - paid
  add(w, second, paid)
end

-- As text: owed, second of the latest burst, used in it, then second and used of each counter.
local function window(limit, share, text)
  if limit == 0 then return nil end
  local w = {limit = limit, burst = math.max(1, math.floor(limit * share)), total = 0, seconds = {}, used = {}}
  local kept = {}
  for number in (text or ''):gmatch('%d+') do kept[#kept + 1] = tonumber(number) end
  w.owed, w.burst_second, w.burst_used = kept[1] or 0, kept[2] or 0, kept[3] or 0
  for n = 5, #kept, 2 do add(w, kept[n - 1], kept[n]) end
  while w.seconds[1] and w.seconds[1] + KEEP_SECONDS <= now do
    local second = table.remove(w.seconds, 1)
    w.total = w.total - w.used[second]
    w.used[second] = nil
    pay(w, second + LAP_SECONDS)
  end
  return w
end

local function as_text(w)
  local kept = {w.owed, w.burst_second, w.burst_used}
  for _, second in ipairs(w.seconds) do
    kept[#kept + 1] = second
    kept[#kept + 1] = w.used[second]
  end
  for n, number in ipairs(kept) do kept[n] = string.format('%.0f', number) end
  return table.concat(kept, ' ')
end

-- When there is capacity for `cost` after the debt. Requests with a later place may be more than the limit allows now.
local function free_at(w, cost)
  local left, total, owed, at = {}, w.total, w.owed, now
  for _, second in ipairs(w.seconds) do left[#left + 1] = {second, w.used[second]} end
  while total > w.limit do
    local first = table.remove(left, 1)
    total, at = total - first[2], first[1] + KEEP_SECONDS
    local paid = math.min(owed, math.max(0, w.limit - total))
    if paid > 0 then
      total, owed = total + paid, owed - paid
      left[#left + 1] = {first[1] + LAP_SECONDS, paid}
      table.sort(left, function(one, other) return one[1] < other[1] end)
    end
  end
  local missing = cost + total + owed - w.limit
  if missing <= 0 then return at end
  local laps = math.ceil(missing / w.limit) - 1 -- only a debt takes more than one lap, and then the window is full
  missing = missing - laps * w.limit
  for _, each in ipairs(left) do
    missing, at = missing - each[2], each[1] + laps * LAP_SECONDS + KEEP_SECONDS
    if missing <= 0 then break end
  end
  return at
end

-- Seconds until there is capacity for so much.
local function lacks(w, cost)
  if not w then return 0 end
  cost = math.min(cost, w.limit)
  local at = cost + w.total + w.owed > w.limit and free_at(w, cost) or now
  local used = w.burst_second == this_second and math.min(w.burst_used, w.burst) or 0
  if used > 0 and used + math.min(cost, w.burst) > w.burst then at = math.max(at, this_second + 1) end
  return at - now
end

local function charge(w, cost, second)
  if not w then return end
  local placed = math.min(cost, w.limit)
  add(w, second, placed)
  w.owed = w.owed + cost - placed
  if second > this_second then return end -- a later place does not count as part of a burst; each process has at most one
  if w.burst_second ~= second then w.burst_second, w.burst_used = second, 0 end
  w.burst_used = w.burst_used + cost
end

local function give_back(w, second, cost, amount)
  if w.used[second] then
    local placed = math.min(cost, w.limit)
    local from_owed = math.min(amount, cost - placed, w.owed)
    w.owed = w.owed - from_owed
    local taken = math.min(amount - from_owed, placed, w.used[second])
    w.used[second] = w.used[second] - taken
    w.total = w.total - taken
  end
  if second == w.burst_second then w.burst_used = math.max(0, w.burst_used - amount) end
  pay(w, this_second)
end

local function open(key, limits)
  local raw, kept = redis.call('HGETALL', key), {}
  for n = 1, #raw, 2 do kept[raw[n]] = raw[n + 1] end
  local account = {
    key = key, born = kept.born or string.format('%.6f', now), concurrency = limits[3], held = limits[4],
    others = 0, gone = {}, models = {}, told = {},
    till = math.min(tonumber(kept.till) or 0, now + LONGEST_PAUSE),
    next = tonumber(kept.next) or 0, paced = tonumber(kept.paced) or 0,
    requests = window(limits[1], limits[5], kept.r),
    tokens = window(limits[2], limits[5], kept.t),
  }
  for field, value in pairs(kept) do
    if field:sub(1, 2) == 's:' and field ~= held_field then
      local held, last = value:match('^(%d+) (%S+)$')
      if held and tonumber(last) > now then
        account.others = account.others + tonumber(held)
      else
        account.gone[#account.gone + 1] = field
      end
    elseif field:sub(1, 2) == 'm:' then
      local last = tonumber(value) or 0
      if last > now then account.models[field:sub(3)] = math.min(last, now + LONGEST_HOLD)
      else account.gone[#account.gone + 1] = field end
    end
  end
  return account
end

-- Drop the hold that ends first.
local function hold_model(account, model, seconds)
  local models, count, first = account.models, 0, nil
  models[model] = math.max(models[model] or 0, now + math.min(seconds, LONGEST_HOLD))
  account.told[model] = true
  for each, last in pairs(models) do
    count = count + 1
    if not first or last < models[first] then first = each end
  end
  if count > MAX_MODELS then
    models[first], account.told[first] = nil, nil
    account.gone[#account.gone + 1] = 'm:' .. first
  end
end

local function close(account)
  local fields = {'born', account.born}
  local function keep(name, value) fields[#fields + 1] = name; fields[#fields + 1] = value end
  if account.till > now or account.paced > now then
    keep('till', exact(account.till)); keep('next', exact(account.next)); keep('paced', exact(account.paced))
  end
  if account.requests then keep('r', as_text(account.requests)) end
  if account.tokens then keep('t', as_text(account.tokens)) end
  if account.concurrency > 0 and account.held > 0 then keep(held_field, string.format('%d %.6f', account.held, now + HELD_SECONDS))
  elseif account.concurrency > 0 then account.gone[#account.gone + 1] = held_field end
  for model in pairs(account.told) do keep('m:' .. model, exact(account.models[model])) end
  redis.call('HSET', account.key, unpack(fields))
  if #account.gone > 0 then redis.call('HDEL', account.key, unpack(account.gone)) end
  redis.call('PEXPIRE', account.key, KEPT_MS)
end

-- Seconds until the rates allow a request of so many tokens.
local function wait_of(account, tokens)
  local pause = account.till - now
  if account.paced > now then pause = math.max(pause, account.next - now) end
  return math.max(0, pause, lacks(account.requests, 1), lacks(account.tokens, tokens))
end

local function has_concurrency(account)
  return account.concurrency == 0 or account.others + account.held < account.concurrency
end

-- After a pause, pace the requests, so that the processes do not all send together.
local function pace(account, at)
  if account.paced <= now or not account.requests then return end
  account.next = math.max(account.next, at) + 60 / account.requests.limit
end

local accounts = {}
for n, limits in ipairs(said[3]) do accounts[n] = open(KEYS[n + 1], limits) end

-- A claim that must wait a little is charged at once, and so has its place: otherwise small requests of other processes
-- would overtake a large one forever. Each process has one such claim at a time. Its later claims must not overtake it,
-- because the process itself decides the order of its requests.
local function claim(of, tokens, patience, model)
  local held = (accounts[of[1]].models[model] or 0) - now
  if held > 0 then return {false, held, 0, 0, {}, held} end
  local wait, last, possible = 0, 1, true
  for place, n in ipairs(of) do
    local account = accounts[n]
    local own = wait_of(account, tokens)
    if not has_concurrency(account) then own, possible = math.max(own, CONCURRENCY_WAIT), false end
    if account.before then own, possible = math.max(own, account.before), false end
    if own > wait then wait, last = own, place end
  end
  local slowest = accounts[of[last]]
  if wait > 0 then slowest.before = wait end
  local charged, marks, second = wait == 0 or possible and wait <= patience, {}, math.floor(now + wait)
  if charged then
    for place, n in ipairs(of) do
      local account = accounts[n]
      account.held = account.held + 1
      charge(account.requests, 1, second)
      charge(account.tokens, tokens, second)
      pace(account, now + wait)
      marks[place] = {account.born, second}
    end
  end
  return {charged, wait, last - 1, wait_of(slowest, 1), marks, 0}
end

local answers = {}
for _, operation in ipairs(said[4]) do
  local kind = operation[1]
  if kind == 'claim' then
    local of = {}
    for place, n in ipairs(operation[2]) do of[place] = n + 1 end
    answers[#answers + 1] = claim(of, operation[3], operation[4], operation[5])
  elseif kind == 'hold' and operation[4] ~= '' then
    hold_model(accounts[operation[2] + 1], operation[4], operation[3])
  elseif kind == 'hold' then
    local account = accounts[operation[2] + 1]
    account.till = math.max(account.till, now + math.min(operation[3], LONGEST_PAUSE))
    account.next, account.paced = math.max(account.next, account.till), account.till + PACED_SECONDS
  else
    local account = accounts[operation[2] + 1]
    if account.born == operation[3] then
      local second, charged, used = operation[4], operation[6], operation[7]
      if account.requests and operation[5] then give_back(account.requests, second, 1, 1) end
      if account.tokens and used < charged then give_back(account.tokens, second, charged, charged - used) end
      if account.tokens and used > charged then
        account.tokens.owed = account.tokens.owed + used - charged
        pay(account.tokens, this_second)
      end
    end
  end
end

for _, account in ipairs(accounts) do close(account) end
return cmsgpack.pack({now, answers})
