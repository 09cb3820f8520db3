// The models and routes, and the candidates for a name: their order, with the reasons.

async function listModels() {
  try {
    const { data } = await read("v1/models")
    $("names").replaceChildren(...data.map(({ id }) => Object.assign(document.createElement("option"), { value: id })))
    const size = n => n ? number(n) : "–"
    fill("listed", data.map(each => [
      each.id, each.owned_by, size(each.context_window), size(each.max_completion_tokens), each.shutdown_date ?? "–",
    ]), "No model is known.")
    hideUnknown("listed")
  } catch (error) {
    fill("listed", [], `The models cannot be shown: ${error.message}`)
  }
}

async function explain(name) {
  const isNewest = newest("explain")
  let [lines, problem] = [[], ""]
  try {
    lines = (await read(`v1/runtime/explain?model=${encodeURIComponent(name)}`)).lines
  } catch (error) {
    problem = error.message
  }
  if (!isNewest()) return
  say($("unexplained"), problem)
  const ranked = lines.filter(line => /^\d+\. /.test(line))
  $("explained").replaceChildren(...ranked.map(line => element("li", "", line.replace(/^\d+\. /, ""))))
  say($("notes"), lines.filter(line => !ranked.includes(line)).join("\n"))
}

$("explain").addEventListener("submit", event => {
  event.preventDefault()
  explain($("model").value)
})
