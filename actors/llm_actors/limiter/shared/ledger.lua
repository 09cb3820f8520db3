-- The books that several processes share: what `ledger.py` asks, in one step for a whole batch.
--
-- KEYS     one account each, a hash: rl, tl (levels of the buckets of requests and of tokens), rc, tc (what was ever
--          charged), at (when the levels were right), till (nothing goes before), born, and for each process s:ID =
--          "slots it holds, until when".
-- ARGV[1]  {process, {{requests per minute, tokens per minute, slots, slots held here}, ...}, {operation, ...}},
--          where 0 is no limit, and an operation is one of
--              {"claim", {account, ...}, tokens, patience}
--              {"end", account, born, requests' mark, requests back, tokens' mark, tokens charged, tokens used}
--              {"hold", account, seconds}
-- returns  for each claim {charged, wait, place of the account that makes it wait, when that one lets anybody go,
--          {{born, marks}, ...}}
--
-- The arithmetic is bucket.py's; times are seconds of this server's clock, which may be set back or forth: a level
-- never grows past a minute's worth, and nothing waits longer than the longest pause.

local FRESH_SECONDS, SLACK, LONGEST_PAUSE = 10, 0.01, 3600
local SLOT_SECONDS, SLOT_WAIT, KEPT_MS = 15, 0.1, 86400000

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local said = cmsgpack.unpack(ARGV[1])
local slot = 's:' .. said[1]

local function bucket(limit, level, charged, fresh, seconds)
  if limit == 0 then return nil end
  local grown = (tonumber(level) or fresh) + limit / 60 * seconds
  return {capacity = limit, rate = limit / 60, level = math.min(limit, grown), charged = tonumber(charged) or 0}
end

local function open(key, limits)
  local raw, kept = redis.call('HGETALL', key), {}
  for n = 1, #raw, 2 do kept[raw[n]] = raw[n + 1] end
  local born = kept.born or string.format('%.6f', now)
  local at = tonumber(kept.at) or now
  local set_back = math.max(0, at - now)
  local till = math.min((tonumber(kept.till) or 0) - set_back, now + LONGEST_PAUSE)
  local seconds = math.max(0, now - math.max(at, till))
  local account = {
    key = key, born = born, till = till, slots = limits[3], held = limits[4], others = 0, gone = {}, moved = {},
    requests = bucket(limits[1], kept.rl, kept.rc, 1, seconds),
    tokens = bucket(limits[2], kept.tl, kept.tc, limits[2] * FRESH_SECONDS / 60, seconds),
  }
  for field, value in pairs(kept) do
    if field:sub(1, 2) == 's:' and field ~= slot then
      local held, last = value:match('^(%d+) (%S+)$')
      if held and tonumber(last) > now then
        account.others = account.others + tonumber(held)
        if tonumber(last) > now + SLOT_SECONDS then account.moved[field] = tonumber(held) end
      else
        account.gone[#account.gone + 1] = field
      end
    end
  end
  return account
end

local function close(account)
  local function exact(number) return string.format('%.17g', number) end
  local fields = {'born', account.born, 'at', exact(now), 'till', exact(account.till)}
  local function keep(name, value) fields[#fields + 1] = name; fields[#fields + 1] = exact(value) end
  if account.requests then keep('rl', account.requests.level); keep('rc', account.requests.charged) end
  if account.tokens then keep('tl', account.tokens.level); keep('tc', account.tokens.charged) end
  if account.slots > 0 and account.held > 0 then account.moved[slot] = account.held
  elseif account.slots > 0 then account.gone[#account.gone + 1] = slot end
  for field, held in pairs(account.moved) do
    fields[#fields + 1] = field
    fields[#fields + 1] = string.format('%d %.6f', held, now + SLOT_SECONDS)
  end
  redis.call('HSET', account.key, unpack(fields))
  if #account.gone > 0 then redis.call('HDEL', account.key, unpack(account.gone)) end
  redis.call('PEXPIRE', account.key, KEPT_MS)
end

local function charge(b, cost)
  if not b then return 0 end
  b.level, b.charged = b.level - cost, b.charged + cost
  return b.charged
end

local function give_back(b, mark, cost, amount)
  local paid = b.charged - (b.capacity - b.level)
  b.level = b.level + math.min(amount, cost, math.max(0, mark - paid))
end

local function lacks(b, cost)
  local missing = b and math.min(cost, b.capacity) - b.level or 0
  return missing > SLACK and missing / b.rate or 0
end

-- Seconds until the rates allow a request of so many tokens.
local function wait_of(account, tokens)
  return math.max(0, account.till - now) + math.max(lacks(account.requests, 1), lacks(account.tokens, tokens))
end

local function has_slot(account)
  return account.slots == 0 or account.others + account.held < account.slots
end

local accounts = {}
for n, key in ipairs(KEYS) do accounts[n] = open(key, said[2][n]) end

-- A claim that must wait a little is charged at once, and so has its place: a large one is not overtaken for ever by
-- small ones elsewhere. One of a process at a time, for in its own line it is the process that knows who goes first:
-- those of its claims that come after one that must wait do not overtake it.
local function claim(of, tokens, patience)
  local wait, last, possible = 0, 1, true
  for place, n in ipairs(of) do
    local account = accounts[n]
    local own = wait_of(account, tokens)
    if not has_slot(account) then own, possible = math.max(own, SLOT_WAIT), false end
    if account.before then own, possible = math.max(own, account.before), false end
    if own > wait then wait, last = own, place end
  end
  local slowest = accounts[of[last]]
  if wait > 0 then slowest.before = wait end
  local charged, marks = wait == 0 or possible and wait <= patience, {}
  if charged then
    for place, n in ipairs(of) do
      local account = accounts[n]
      account.held = account.held + 1
      marks[place] = {account.born, charge(account.requests, 1), charge(account.tokens, tokens)}
    end
  end
  return {charged, wait, last - 1, wait_of(slowest, 1), marks}
end

local answers = {}
for _, operation in ipairs(said[3]) do
  local kind = operation[1]
  if kind == 'claim' then
    local of = {}
    for place, n in ipairs(operation[2]) do of[place] = n + 1 end
    answers[#answers + 1] = claim(of, operation[3], operation[4])
  elseif kind == 'hold' then
    local account = accounts[operation[2] + 1]
    account.till = math.max(account.till, now + math.min(operation[3], LONGEST_PAUSE))
    if account.requests then charge(account.requests, math.max(0, account.requests.level - 1)) end
  else
    local account = accounts[operation[2] + 1]
    if account.born == operation[3] then
      local charged, used = operation[7], operation[8]
      if account.requests and operation[5] then give_back(account.requests, operation[4], 1, 1) end
      if account.tokens and used < charged then give_back(account.tokens, operation[6], charged, charged - used) end
      if account.tokens and used > charged then charge(account.tokens, used - charged) end
    end
  end
end

for _, account in ipairs(accounts) do close(account) end
return cmsgpack.pack(answers)
