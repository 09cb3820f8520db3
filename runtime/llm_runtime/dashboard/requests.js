// The requests that ended last, and of each, when asked, what its calls did.

const opened = new Set() // ids of requests whose calls are shown

async function listRequests() {
  try {
    const { requests } = await read("v1/runtime/requests")
    say($("unlisted"), requests.length ? "" : "No request has ended yet.")
    const body = $("ended").tBodies[0]
    $("ended").hidden = !requests.length
    body.replaceChildren(...requests.flatMap(each => [ended(each), ...(opened.has(each.request.id) ? [timeline(each)] : [])]))
  } catch (error) {
    say($("unlisted"), `The requests are not known: ${error.message}`)
  }
}

const short = id => id.length > 14 ? `${id.slice(0, 12)}…` : id

function ended({ request, ended_at, calls }) {
  const row = document.createElement("tr")
  const button = Object.assign(document.createElement("button"), { type: "button", className: "more", textContent: short(request.id) })
  button.setAttribute("aria-expanded", opened.has(request.id))
  button.addEventListener("click", async () => {
    if (!opened.delete(request.id)) opened.add(request.id)
    await listRequests()
    document.querySelector(`[data-id="${CSS.escape(request.id)}"]`)?.focus()
  })
  button.dataset.id = request.id
  const [tokensIn, tokensOut] = [request.input_tokens ?? 0, request.output_tokens ?? 0]
  const end = request.failure ? [request.failure.replaceAll("_", " "), "bad"] : [request.cache ? "cache" : "ok", "good"]
  const cells = [
    new Date(ended_at * 1000).toLocaleTimeString(), button, request.caller ?? "", request.model, request.deployment ?? "–", end,
    `${number(tokensIn)} · ${number(tokensOut)}`, request.cost == null ? "–" : dollars(request.cost),
    request.first_token_ms == null ? "–" : seconds(request.first_token_ms / 1000), seconds(request.ms / 1000), number(request.attempts),
  ]
  const heads = [...$("ended").rows[0].cells]
  cells.forEach((cell, i) => {
    const td = row.insertCell()
    td.dataset.head = heads[i].firstChild.data
    if (cell instanceof Node) td.append(cell)
    else [td.textContent, td.className] = Array.isArray(cell) ? cell : [cell, ""]
  })
  return row
}

function timeline({ request, calls }) {
  const row = document.createElement("tr")
  const cell = row.insertCell()
  cell.colSpan = $("ended").rows[0].cells.length
  cell.className = "calls"
  const longest = Math.max(...calls.map(call => (call.waited_ms ?? 0) + call.ms), 1)
  const said = [
    request.id !== short(request.id) && `Id: ${request.id}`,
    request.upstream_words && `The vendor: ${request.upstream_words}`, request.adjusted?.length && `Adjusted: ${request.adjusted.join(", ")}`,
    request.client_id && `The client's id: ${request.client_id}`, !calls.length && "Nobody was called.",
  ]
  cell.append(...calls.map(call => bar(call, longest)), ...said.filter(each => each).map(each => element("p", "", each)))
  return row
}

// One call: how long it waited for a limit, then until its first token, then until its end.
function bar(call, longest) {
  const node = element("div", "call")
  const first = call.first_token_ms ?? call.ms
  const words = [call.outcome.replaceAll("_", " "), seconds(call.ms / 1000)]
  if (call.waited_ms) words.push(`waited ${seconds(call.waited_ms / 1000)}`)
  if (call.first_token_ms != null) words.push(`first token ${seconds(first / 1000)}`)
  if (call.asked === false) words.push("not called")
  if (call.hedge) words.push("hedge")
  const track = element("span", "track")
  for (const [look, ms] of [["waited", call.waited_ms ?? 0], ["before", first], ["after", call.ms - first]]) {
    const part = element("i", call.outcome === "ok" ? look : `${look} lost`)
    part.style.width = `${(100 * ms / longest).toFixed(1)}%`
    track.append(part)
  }
  node.append(element("b", "", call.deployment), track, element("small", "", words.join(" · ")))
  return node
}
