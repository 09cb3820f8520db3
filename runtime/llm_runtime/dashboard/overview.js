// The overview: reads the daemon's statistics while somebody looks. What is counted grows from the daemon's start; rates
// and "the last minutes" are differences between samples, by the daemon's own clock (uptime_s).

const EVERY_MS = 2000
const WINDOW_S = 300
const RATE_S = 10
const STEPS = 3 // a trend is drawn from differences over so many samples, which smooths it
const MODELS_SHOWN = 10

// -- reading

let asking = false
let timer
let downSince = null
let samples = [] // of the last WINDOW_S, oldest first
const lastSeen = new Map() // kind of failure -> uptime_s when it grew under our eyes

async function refresh() {
  clearTimeout(timer)
  if (asking || document.hidden) return
  asking = true
  await look()
  asking = false
  if ($("login").hidden) timer = setTimeout(refresh, EVERY_MS) // else when a key is given
}

async function look() {
  try {
    const [answer, text] = await ask("v1/runtime/statistics")
    if (needsKey(answer, text)) return askForKey(answer, text)
    if (!answer.ok) return down([`it answered with HTTP ${answer.status}`, refusal(text).message?.replace(/\.$/, "")].filter(part => part).join(": "))
    take(text)
  } catch (error) {
    down(error.message)
  }
}

// -- samples

function take(text) {
  try {
    add(JSON.parse(text))
  } catch (error) {
    return down(`this page cannot read its answer (${error.message})`)
  }
}

function add(now) {
  const before = samples.at(-1) ?? now
  if (now.uptime_s < before.uptime_s) { // another process
    samples = []
    lastSeen.clear()
  }
  for (const [kind, { requests, calls }] of entries(failures(since(now, before))))
    if (requests + calls) lastSeen.set(kind, now.uptime_s)
  samples = [...samples.filter(each => each.uptime_s >= now.uptime_s - WINDOW_S), now]
  appear("up", now.own_only ? "llm-runtime" : `${number(now.running)} running · llm-runtime`)
  say($("state"), "Up")
  show()
}

function down(why) {
  const first = downSince ?? new Date()
  appear("down", "■ not answering · llm-runtime")
  downSince = first
  const stale = samples.length ? " What is shown is from before." : ""
  say($("state"), `Not answering since ${first.toLocaleTimeString()}: ${why}.${stale}`)
}

function appear(how, title) {
  downSince = null
  document.body.className = how
  document.title = title
  $("login").hidden = how !== "locked"
  $("main").hidden = how === "locked" || (how === "down" && !samples.length)
  $("leave").hidden = !key
}

// -- what follows from samples

// By how much the counters in `now` have grown.
function since(now, base) {
  if (typeof now === "number") return Math.max(0, now - (base ?? 0))
  if (now === null || typeof now !== "object") return now
  return fromEntries(entries(now).map(([name, value]) => [name, since(value, base?.[name])]))
}

const failed = outcomes => sum(outcomes) - (outcomes.ok ?? 0) - (outcomes.cancelled ?? 0)
const allFailed = counted => sum(counted.requests, failed) + sum(counted.refused)
const tokens = use => use.input_tokens + use.output_tokens
const cost = provider => sum(provider.models, use => use.cost ?? 0)
const answered = counted => sum(counted.providers, each => sum(each.attempt_seconds?.counts))
const took = counted => sum(counted.providers, each => each.attempt_seconds?.total ?? 0)
// A key that may see only its own usage finds that below its name, and nothing elsewhere.
const allEnded = counted => counted.own_only ? sum(counted.callers, each => each.requests) : sum(counted.requests, sum) + sum(counted.refused)
const allTokens = counted => counted.own_only ? sum(counted.callers, each => each.tokens) : sum(counted.providers, each => sum(each.models, tokens))
const allCost = counted => counted.own_only ? sum(counted.callers, each => each.cost) : sum(counted.providers, cost)

// Kind -> how many requests and calls failed so, and at whom.
function failures({ refused, requests, providers, limited }) {
  const found = {}
  const of = kind => found[kind] ??= { requests: 0, calls: 0, at: [], owners: [] }
  for (const outcomes of [refused, ...values(requests)])
    for (const [kind, count] of entries(outcomes)) of(kind).requests += count
  for (const [name, { attempts }] of entries(providers))
    for (const [kind, count] of entries(attempts)) {
      of(kind).calls += count
      if (count) of(kind).at.push(name)
    }
  for (const [kind, owners] of entries(limited))
    for (const [owner, count] of entries(owners)) if (count) of(kind).owners.push(`${owner} ${number(count)}`)
  delete found.ok
  return found
}

// Every provider's histogram of that name as one.
function together(counted, name) {
  const known = values(counted.providers).map(each => each[name]).filter(each => each)
  return known.reduce((all, each) => ({
    bounds: each.bounds,
    counts: values(each.counts).map((count, i) => count + (all?.counts[i] ?? 0)),
  }), null)
}

// About which value that share is below, said in words.
function quantile(share, counts, bounds) {
  let rank = share * sum(counts)
  if (!rank) return "–"
  const at = values(counts).findIndex(count => (rank -= count) <= 0)
  if (at >= bounds.length) return `> ${bounds.at(-1)} s`
  const low = bounds[at - 1] ?? 0
  return seconds(low + (bounds[at] - low) * (1 + rank / counts[at]))
}

// What `of` makes of each sample, of one some steps before it, and of the time between them.
const steps = of => samples.slice(STEPS).map((each, i) => of(each, samples[i], Math.max(each.uptime_s - samples[i].uptime_s, 0.1)))
const rates = of => steps((now, before, lasted) => Math.max(0, of(now) - of(before)) / lasted)

// -- showing

const tiles = {}

function newTile() {
  const drawn = tag => document.createElementNS("http://www.w3.org/2000/svg", tag)
  const svg = drawn("svg")
  svg.setAttribute("viewBox", `0 0 ${WINDOW_S} 40`)
  svg.setAttribute("preserveAspectRatio", "none")
  svg.setAttribute("aria-hidden", "true")
  svg.append(drawn("path"), drawn("path"))
  const node = document.createElement("div")
  node.append(...["span", "b", "small"].map(tag => document.createElement(tag)), svg)
  return $("now").appendChild(node)
}

function tile(name, value, about, trend, look = "") {
  const node = tiles[name] ??= newTile()
  const [label, big, small, svg] = node.children
  say(label, name)
  say(big, value)
  say(small, about)
  big.className = look
  svg.setAttribute("class", look)
  const most = Math.max(...trend, 1e-9)
  const times = samples.slice(-trend.length).map(each => (each.uptime_s - samples[0].uptime_s).toFixed(1))
  const points = trend.map((each, i) => `${times[i]} ${(38 - 32 * each / most).toFixed(1)}`).join("L")
  const [area, line] = svg.children
  area.setAttribute("d", trend.length > 1 ? `M${times[0]} 40L${points}L${times.at(-1)} 40Z` : "")
  line.setAttribute("d", trend.length > 1 ? `M${points}` : "")
}

function show() {
  const now = samples.at(-1)
  const lately = since(now, samples[0])
  const all = document.querySelector(":checked").value === "all"
  $("own").hidden = !now.own_only
  for (const table of ["failures", "used", "cache"]) $(table).parentNode.hidden = now.own_only
  const facts = [`up ${lasting(now.uptime_s)}`]
  if (now.connections !== null) facts.push(`${number(now.connections)} connection${now.connections === 1 ? "" : "s"}`)
  const sharing = { off: "limits not shared", on: "limits shared through Redis", lost: "✕ limits not shared: Redis does not answer" }
  facts.push(sharing[now.sharing] ?? "✕ the limiter does not answer")
  say($("facts"), facts.join(" · "))
  const span = lasting(now.uptime_s - samples[0].uptime_s)
  say($("window"), `of the last ${span}`)
  showNow(now, lately, span)
  for (const part of [showProviders, showFailures, showModels, showCallers, showCache]) part(now, all ? now : lately)
  fill("tree", actors(now.tree))
  showKeys(now)
  showBudgets(now)
}

function showNow(now, lately, span) {
  const recent = samples.find(each => each.uptime_s >= now.uptime_s - RATE_S)
  const lasted = now.uptime_s - recent.uptime_s
  const perSecond = of => lasted ? rate(Math.max(0, of(now) - of(recent)) / lasted) : "–"
  const ended = allEnded(lately)
  const lost = allFailed(lately)
  const [answers, firsts] = ["attempt_seconds", "first_token_seconds"].map(name => {
    const known = together(lately, name)
    return known ? quantile(0.5, known.counts, together(now, name).bounds) : "–"
  })
  const means = steps((each, before) => {
    const count = answered(each) - answered(before)
    return count > 0 ? Math.max(0, took(each) - took(before)) / count : 0
  })
  const running = samples.map(each => each.running)
  if (now.own_only) tile("Running", "–", "", [])
  else tile("Running", number(now.running), `at most ${number(Math.max(...running))} in ${span}`, running)
  tile("Requests / s", perSecond(allEnded), `${number(ended)} ended in ${span}`, rates(allEnded))
  if (now.own_only) tile("Failed", "–", "", [])
  else tile("Failed", number(lost), `${percent(lost, ended)} in ${span}`, rates(allFailed), lost ? "bad" : "")
  tile("Answer, median", answers, `first token ${firsts}`, means)
  tile("Tokens / s", perSecond(allTokens), `${number(allTokens(lately))} in ${span}`, rates(allTokens))
  tile("Cost", dollars(allCost(lately)), `in ${span}; ${dollars(allCost(now))} in all`, rates(allCost))
}

function showProviders(now, counted) {
  const branch = (node, name) => node?.children.find(each => each.name === name)
  const trees = branch(now.tree, "core") ? [now.tree] : now.tree.children // of several workers
  const supervisors = trees.map(tree => branch(branch(tree, "core"), "providers"))
  const breakers = { closed: ["✓ closed", "good"], "half-open": ["◐ half-open", "warn"], open: ["✕ open", "bad"] }
  const rows = entries(now.providers).map(([name, { kind, breaker, circuits, limits, ...known }]) => {
    const { attempts, models, unpriced, ...grown } = counted.providers[name]
    const lost = failed(attempts)
    const held = limits?.held_s && [`◐ held ${seconds(limits.held_s)}`, "warn"]
    const ill = Object.keys(circuits).length && [`◐ open: ${Object.keys(circuits).join(", ")}`, "warn"]
    const parked = supervisors.some(each => branch(each, name)?.status === "parked") && ["■ parked", "bad"]
    const times = of => known[of] && sum(grown[of].counts) ? [0.5, 0.95].map(share => quantile(share, grown[of].counts, known[of].bounds)).join(" · ") : "–"
    const spent = cost({ models })
    const unseen = what => now.own_only ? "–" : what
    return [
      name === kind ? name : `${name}\n${kind}`,
      parked || (breaker === "closed" && (ill || held)) || breakers[breaker] || breaker,
      unseen(number(attempts.ok ?? 0)),
      unseen(lost ? [`${number(lost)} (${percent(lost, sum(attempts))})`, "bad"] : "0"),
      times("attempt_seconds"),
      times("first_token_seconds"),
      unseen(["input_tokens", "output_tokens"].map(each => number(sum(models, use => use[each]))).join(" · ")),
      unseen(unpriced ? spent ? `${dollars(spent)} + unknown` : "unknown" : dollars(spent)),
      limits ? number(limits.in_flight) : "–",
      limits ? warn(limits.waiting) : "–",
    ]
  })
  fill("providers", rows, "No provider is configured.")
}

function showFailures(now, counted) {
  const rows = entries(failures(counted)).filter(([, each]) => each.requests + each.calls)
  rows.sort(([, a], [, b]) => b.requests + b.calls - a.requests - a.calls)
  fill("failures", rows.map(([kind, { requests, calls, at, owners }]) => {
    const seen = lastSeen.has(kind) ? `${lasting(now.uptime_s - lastSeen.get(kind))} ago` : "earlier"
    return [kind.replaceAll("_", " "), at.join(", "), owners.join(", "), number(requests), number(calls), seen]
  }), "None.")
}

function showModels(now, counted) {
  const models = entries(counted.providers).flatMap(([name, provider]) =>
    entries(provider.models).map(([model, use]) => [`${name}/${model}`, use]))
  const used = models.filter(([, use]) => tokens(use)).sort(([, a], [, b]) => tokens(b) - tokens(a))
  const rows = used.slice(0, MODELS_SHOWN).map(([name, use]) =>
    [name, number(use.input_tokens), number(use.output_tokens), use.cost === null ? "unknown" : dollars(use.cost)])
  if (used.length > MODELS_SHOWN) rows.push([`and ${used.length - MODELS_SHOWN} more`])
  fill("used", rows, "No tokens were used.")
}

function showCallers(now, counted) {
  const callers = entries(counted.callers).filter(([, use]) => use.requests || use.tokens)
  callers.sort(([, a], [, b]) => b.requests - a.requests)
  const rows = callers.map(([name, use]) => [
    name || "without a key", number(use.requests), number(use.tokens), dollars(use.cost), ...limited(now.callers[name].limits),
  ])
  fill("callers", rows, "No requests.")
}

function limited(limits) {
  if (!limits) return ["–", "–", "–"]
  const left = [limits.requests_left, limits.tokens_left].map(each => each === null ? "∞" : number(each))
  return [number(limits.in_flight), warn(limits.waiting), left.join(" · ")]
}

function showCache(now, counted) {
  const tiers = entries(now.cache ?? {}).filter(([, tier]) => tier)
  fill("cache", tiers.map(([name, tier]) => {
    const { hits, misses, evicted, errors } = counted.cache?.[name] ?? tier
    return [name, bytes(tier.bytes), ...[hits, misses, evicted].map(number), bad(errors)]
  }), "It does not answer.")
  const { hit = 0, coalesced = 0, miss = 0 } = counted.cache_requests
  say($("shared"), `${number(hit)} of ${number(hit + coalesced + miss)} requests were answered from it, ${number(coalesced)} by another's answer.`)
}

function actors(node, indent = "") {
  const looks = { running: ["● running", "good"], parked: ["■ parked", "bad"], ended: "○ ended" }
  const { depth, capacity } = node.mailbox
  const mailbox = capacity ? [`${number(depth)} / ${number(capacity)}`, depth ? "" : "none"] : ""
  const status = looks[node.status] ?? [`◐ ${node.status}`, "warn"]
  const row = [indent + node.name, status, lasting(node.uptime), warn(node.restarts), mailbox, node.last_crash]
  return [row, ...node.children.flatMap(child => actors(child, indent + "   "))]
}

$("overview").addEventListener("change", () => samples.length && show())
