// The spending in the ledger, which survives restarts, grouped as chosen. Below that, the current state of each key and
// each budget, from the daemon's statistics.

const SPEND_EVERY_MS = 10000 // the ledger is a file

async function listSpend() {
  const since = $("since").value ||= `${new Date().toISOString().slice(0, 8)}01`
  const isNewest = newest("spend")
  try {
    const { data, cost } = await read(`v1/runtime/spend?by=${$("by").value}&since=${since}`)
    if (!isNewest()) return
    fill("spent", data.map(each => [
      each.name || "–", number(each.calls), bad(each.failed), `${number(each.input_tokens)} · ${number(each.output_tokens)}`,
      each.unpriced ? each.cost ? `${dollars(each.cost)} + unknown` : "unknown" : dollars(each.cost), percent(each.cost, cost),
    ]), "Nothing was spent.")
    say($("unspent"), `${dollars(cost)} since ${since} (UTC)`)
  } catch (error) {
    if (!isNewest()) return
    fill("spent", [], "")
    say($("unspent"), `The spending cannot be shown: ${error.message}`)
  }
}

function used(budget) {
  const share = Math.max(0, ...[[budget.usd, budget.usd_limit], [budget.tokens, budget.tokens_limit]].map(([n, most]) => most ? n / most : 0))
  return [percent(share, 1), share >= 1 ? "bad" : share >= (budget.soft ?? 1) ? "warn" : ""]
}

function showKeys(now) {
  const budgets = entries(now.budgets)
  const names = new Set([...Object.keys(now.callers), ...budgets.flatMap(([, each]) => each.callers ?? [])])
  fill("keys", [...names].sort().map(name => {
    const use = now.callers[name]
    const paying = budgets.filter(([, each]) => each.callers?.includes(name) ?? true).map(([budget, each]) => [budget, ...used(each)])
    return [
      name || "without a key", number(use?.requests ?? 0), dollars(use?.cost ?? 0), ...limited(use?.limits),
      [paying.map(([budget, share]) => `${budget} ${share}`).join(", ") || "–", ["bad", "warn"].find(look => paying.some(each => each[2] === look)) ?? ""],
    ]
  }), "No requests.")
}

function showBudgets(now) {
  const of = (n, most, words) => most === null ? words(n) : `${words(n)} of ${words(most)}`
  fill("budgets", entries(now.budgets).map(([name, each]) => [
    name,
    [each.callers?.join(", ") ?? "all keys", ...each.routes.map(route => `route ${route}`)].join(", "),
    of(each.usd, each.usd_limit, dollars), of(each.tokens, each.tokens_limit, number), used(each),
    lasting(Math.max(0, each.resets_at - Date.now() / 1000)),
  ]), "No budget is configured.")
}

setInterval(() => { if (!document.hidden && !$("spend").hidden && document.body.className === "up") listSpend() }, SPEND_EVERY_MS)
$("spending").addEventListener("change", listSpend)
$("spending").addEventListener("submit", event => event.preventDefault())
