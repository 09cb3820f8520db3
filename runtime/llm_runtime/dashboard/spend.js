// What was spent, as the ledger has it: over restarts, by whom or for what.

async function listSpend() {
  const since = $("since").value ||= `${new Date().toISOString().slice(0, 8)}01`
  try {
    const { data, cost } = await read(`v1/runtime/spend?by=${$("by").value}&since=${since}`)
    fill("spent", data.map(each => [
      each.name || "–", number(each.calls), bad(each.failed), `${number(each.input_tokens)} · ${number(each.output_tokens)}`,
      each.unpriced ? each.cost ? `${dollars(each.cost)} + unknown` : "unknown" : dollars(each.cost), percent(each.cost, cost),
    ]), "Nothing was spent.")
    say($("unspent"), `${dollars(cost)} since ${since} (UTC)`)
  } catch (error) {
    fill("spent", [], "")
    say($("unspent"), `What was spent is not known: ${error.message}`)
  }
}

$("spending").addEventListener("change", listSpend)
$("spending").addEventListener("submit", event => event.preventDefault())
