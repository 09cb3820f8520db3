// The overview: reads the daemon's statistics while the page is visible. Counters grow from the daemon's start. Rates
// and the numbers of the last minutes are differences between samples, on the daemon's clock (uptime_s).

const EVERY_MS = 2000
const WINDOW_S = 300
const RATE_S = 10
const STEPS = 3 // a trend is drawn from differences over so many samples, which smooths it
const MODELS_SHOWN = 10

// -- reading

let looking = null // the promise of a look that is in progress
let timer
let downSince = null
let samples = [] // of the last WINDOW_S, oldest first
const lastSeen = new Map() // kind of failure -> uptime_s when this page last saw its count grow

async function refresh() {
  if (document.hidden) return clearTimeout(timer)
  await (looking ??= look().finally(() => looking = null))
  clearTimeout(timer)
  if ($("login").hidden) timer = setTimeout(refresh, EVERY_MS) // else `refresh` is called when a key is given
}

async function look() {
  const used = key
  try {
    const [answer, text] = await ask("v1/runtime/statistics")
    if (key !== used) return look() // another key was given meanwhile
    if (needsKey(answer, text)) return askForKey(answer, text)
    if (!answer.ok) return down([`it responded with HTTP ${answer.status}`, refusal(text).message?.replace(/\.$/, "")].filter(part => part).join(": "))
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
    return down(`this page cannot read its response (${error.message})`)
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
  appear("down", "■ not responding · llm-runtime")
  downSince = first
  const stale = samples.length ? " The page shows the last known numbers." : ""
  say($("state"), `Not responding since ${first.toLocaleTimeString()}: ${why}.${stale}`)
}

function appear(how, title) {
  downSince = null
  document.body.className = how
  document.title = title
  $("login").hidden = how !== "locked"
  const wasHidden = $("main").hidden
  $("main").hidden = how === "locked" || (how === "down" && !samples.length)
  $("leave").hidden = !key
  if (wasHidden && !$("main").hidden) choose()
}

// -- trends

// The results of `of`. It is called with each sample, the sample some steps before it, and the seconds between the two.
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
  const lasted = now.uptime_s - samples[0].uptime_s
  $("recent").disabled = !lasted
  const all = !lasted || !$("recent").checked
  $("own").hidden = !now.own_only
  for (const table of ["failures", "used", "cache"]) $(table).parentNode.hidden = now.own_only
  const facts = [`up ${lasting(now.uptime_s)}`]
  if (now.connections !== null) facts.push(`${number(now.connections)} connection${now.connections === 1 ? "" : "s"}`)
  const sharing = { off: "limits not shared", on: "limits shared through Redis", lost: "✕ limits not shared: Redis does not respond" }
  facts.push(sharing[now.sharing] ?? "✕ the limiter does not respond")
  say($("facts"), facts.join(" · "))
  say($("window"), lasted ? `of the last ${lasting(lasted)}` : "of the last minutes")
  showNow(now, lately, lasted)
  for (const part of [showProviders, showFailures, showModels, showCallers, showCache]) part(now, all ? now : lately)
  fill("tree", actors(now.tree))
  showKeys(now)
  showBudgets(now)
}

// At first there is only one sample, so growth and rates are not known yet.
function showNow(now, lately, lasted) {
  const recent = samples.findLast(each => each.uptime_s <= now.uptime_s - RATE_S) ?? samples[0]
  const perSecond = of => lasted ? rate(Math.max(0, of(now) - of(recent)) / (now.uptime_s - recent.uptime_s)) : "–"
  const during = words => lasted ? `${words} in ${lasting(lasted)}` : ""
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
  const mistakes = allClientErrors(lately)
  const told = [ended && during(percent(lost, ended)), mistakes && `${number(mistakes)} client error${mistakes === 1 ? "" : "s"}`]
  if (now.own_only) tile("Running", "–", "", [])
  else tile("Running", number(now.running), during(`at most ${number(Math.max(...running))}`), running)
  tile("Requests / s", perSecond(allEnded), during(`${number(ended)} ended`), rates(allEnded))
  if (now.own_only) tile("Failed", "–", "", [])
  else tile("Failed", lasted ? number(lost) : "–", told.filter(part => part).join("; "), rates(allFailed), lost ? "bad" : "")
  tile("Response, median", answers, firsts === "–" ? "" : `first token ${firsts}`, means)
  tile("Tokens / s", perSecond(allTokens), during(number(allTokens(lately))), rates(allTokens))
  tile("Cost", lasted ? dollars(allCost(lately)) : "–", `${lasted ? `in ${lasting(lasted)}; ` : ""}${dollars(allCost(now))} in total`, rates(allCost))
}

function showProviders(now, counted) {
  const branch = (node, name) => node?.children.find(each => each.name === name)
  const trees = branch(now.tree, "core") ? [now.tree] : now.tree.children // of several workers
  const supervisors = trees.map(tree => branch(branch(tree, "core"), "providers"))
  const breakers = { closed: ["✓ closed", "good"], "half-open": ["◐ half-open", "warn"], open: ["✕ open", "bad"] }
  const rows = entries(now.providers).map(([name, { kind, breaker, circuits, limits, ...known }]) => {
    const { attempts, models, unpriced, ...grown } = counted.providers[name]
    const [lost, mistakes] = [failed(attempts), clientErrors(attempts)]
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
      unseen([[lost && `${number(lost)} (${percent(lost, sum(attempts))})`, mistakes && `${number(mistakes)} client`].filter(part => part).join(" + ") || "0", lost ? "bad" : mistakes ? "" : "none"]),
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
    return [kind.replaceAll("_", " ") + (CLIENT_ERRORS.has(kind) ? "\nclient error" : ""), at.join(", "), owners.join(", "), number(requests), number(calls), seen]
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
  }), "The cache does not respond.")
  const { hit = 0, coalesced = 0, miss = 0 } = counted.cache_requests
  say($("shared"), `${number(hit)} of ${number(hit + coalesced + miss)} requests got their response from the cache; ${number(coalesced)} shared the response of an equal request in progress.`)
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
