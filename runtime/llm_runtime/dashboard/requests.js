// The most recently ended requests. A click on a request shows its attempts.

const SHOWN_FIRST = 20
const SHOWN_MORE = 40

const opened = new Set() // ids of requests whose attempts are shown
const nodes = new Map() // id -> the row of this request; it does not change any more
let recent = []
let shownRequests = SHOWN_FIRST

async function listRequests() {
  const isNewest = newest("requests")
  try {
    const { requests } = await read("v1/runtime/requests")
    if (!isNewest()) return
    recent = requests
    say($("unlisted"), recent.length ? "" : "No request has ended yet.")
    showRequests()
  } catch (error) {
    say($("unlisted"), `The requests cannot be shown: ${error.message}`)
  }
}

// Rows that stay are not changed, so that the reader keeps the focus, the selection and the scroll position.
function showRequests() {
  const listed = recent.slice(0, shownRequests)
  const rows = listed.flatMap(each => opened.has(each.request.id) ? [rowOf(each, "", ended), rowOf(each, "calls ", timeline)] : [rowOf(each, "", ended)])
  const body = $("ended").tBodies[0]
  const wanted = new Set(rows)
  for (const [id, row] of nodes) if (!wanted.has(row)) nodes.delete(id)
  for (const row of [...body.rows]) if (!wanted.has(row)) row.remove()
  rows.forEach((row, at) => body.rows[at] !== row && body.insertBefore(row, body.rows[at] ?? null))
  $("ended").hidden = !recent.length
  $("further").hidden = recent.length <= shownRequests
  say($("further"), `Show more (${recent.length - shownRequests} left)`)
}

function rowOf(each, kind, make) {
  const id = kind + each.request.id
  if (!nodes.has(id)) nodes.set(id, make(each))
  return nodes.get(id)
}

const short = id => id.length > 14 ? `${id.slice(0, 12)}…` : id

// The requested model and, if another deployment responded or was tried last, that deployment.
function modelAndDeployment({ model, deployment, failure }) {
  return deployment && deployment !== model ? `${brief(model)}\n${failure ? "last" : "by"} ${brief(deployment)}` : brief(model)
}

function ended({ request, ended_at }) {
  const row = document.createElement("tr")
  const button = Object.assign(document.createElement("button"), { type: "button", className: "more", textContent: short(request.id), title: request.id })
  button.setAttribute("aria-expanded", opened.has(request.id))
  button.addEventListener("click", () => {
    if (!opened.delete(request.id)) opened.add(request.id)
    button.setAttribute("aria-expanded", opened.has(request.id))
    showRequests()
  })
  button.dataset.id = request.id
  const failure = request.failure?.replaceAll("_", " ")
  const cells = [
    new Date(ended_at * 1000).toLocaleTimeString(),
    failure ? [failure, CLIENT_ERRORS.has(request.failure) ? "warn" : "bad"] : [request.cache ? "cache" : "ok", "good"],
    button, brief(request.caller ?? ""), modelAndDeployment(request),
    `${number(request.input_tokens ?? 0)} · ${number(request.output_tokens ?? 0)}`, request.cost == null ? "–" : dollars(request.cost),
    request.first_token_ms == null ? "–" : seconds(request.first_token_ms / 1000), seconds(request.ms / 1000), number(request.attempts),
  ]
  const heads = [...$("ended").rows[0].cells]
  cells.forEach((cell, i) => {
    const td = row.insertCell()
    td.dataset.head = heads[i].firstChild.data
    if (cell instanceof Node) td.append(cell)
    else [td.textContent, td.className] = Array.isArray(cell) ? cell : [cell, ""]
  })
  row.cells[4].title = request.model
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
    request.client_id && `The client's id: ${request.client_id}`, !calls.length && "No attempt was made.",
  ]
  cell.append(...calls.map(call => bar(call, longest)), ...said.filter(each => each).map(each => element("p", "", each)))
  return row
}

// One attempt: the wait for a limit, the time to its first token, and the time to its end. Or why nothing was sent.
function bar(call, longest) {
  const node = element("div", "call")
  const first = call.first_token_ms ?? call.ms
  const outcome = call.outcome.replaceAll("_", " ")
  const words = call.asked === false ? [`not sent: ${outcome}`] : [outcome, seconds(call.ms / 1000)]
  if (call.waited_ms) words.push(`waited ${seconds(call.waited_ms / 1000)}`)
  if (call.first_token_ms != null) words.push(`first token ${seconds(first / 1000)}`)
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

$("further").addEventListener("click", () => {
  shownRequests += SHOWN_MORE
  showRequests()
})
