// Computations on statistics: growth of counters, failures and client errors, durations.

const CLIENT_ERRORS = new Set("/*client errors*/".split(" ")) // kinds of failures; `FailureRule.client_error`

// By how much the counters in `now` have grown.
function since(now, base) {
  if (typeof now === "number") return Math.max(0, now - (base ?? 0))
  if (now === null || typeof now !== "object") return now
  return fromEntries(entries(now).map(([name, value]) => [name, since(value, base?.[name])]))
}

const clientErrors = outcomes => sum(entries(outcomes).filter(([kind]) => CLIENT_ERRORS.has(kind)).map(([, count]) => count))
const failed = outcomes => sum(outcomes) - (outcomes.ok ?? 0) - (outcomes.cancelled ?? 0) - clientErrors(outcomes)
// A refusal by a caller's own limit is a client error, too. Its kind is the same as that of a provider's limit.
const byOwnLimits = ({ limited }) => sum(entries(limited).filter(([kind]) => !CLIENT_ERRORS.has(kind)).map(([, owners]) => owners.caller ?? 0))
const allClientErrors = counted => sum(counted.requests, clientErrors) + clientErrors(counted.refused) + byOwnLimits(counted)
const allFailed = counted => sum(counted.requests, failed) + failed(counted.refused) - byOwnLimits(counted)
const tokens = use => use.input_tokens + use.output_tokens
const cost = provider => sum(provider.models, use => use.cost ?? 0)
const answered = counted => sum(counted.providers, each => sum(each.attempt_seconds?.counts))
const took = counted => sum(counted.providers, each => each.attempt_seconds?.total ?? 0)
// For a key that may see only its own usage, the usage is under its name, and everything else is empty.
const allEnded = counted => counted.own_only ? sum(counted.callers, each => each.requests) : sum(counted.requests, sum) + sum(counted.refused)
const allTokens = counted => counted.own_only ? sum(counted.callers, each => each.tokens) : sum(counted.providers, each => sum(each.models, tokens))
const allCost = counted => counted.own_only ? sum(counted.callers, each => each.cost) : sum(counted.providers, cost)

// Kind of failure -> the numbers of requests and attempts that failed with it, the providers, and the limit owners.
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

// The histograms with this name of all providers, added up.
function together(counted, name) {
  const known = values(counted.providers).map(each => each[name]).filter(each => each)
  return known.reduce((all, each) => ({
    bounds: each.bounds,
    counts: values(each.counts).map((count, i) => count + (all?.counts[i] ?? 0)),
  }), null)
}

// The quantile of a histogram, estimated, as text.
function quantile(share, counts, bounds) {
  let rank = share * sum(counts)
  if (!rank) return "–"
  const at = values(counts).findIndex(count => (rank -= count) <= 0)
  if (at >= bounds.length) return `> ${bounds.at(-1)} s`
  const low = bounds[at - 1] ?? 0
  return seconds(low + (bounds[at] - low) * (1 + rank / counts[at]))
}
