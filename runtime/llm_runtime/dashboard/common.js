"use strict"
// Code of all views: reading from the daemon, formatting numbers, tables. Text is only set as textContent.

const PATIENCE_MS = 5000

const $ = id => document.getElementById(id)
const { entries, fromEntries, values } = Object
const sum = (of, what = x => x) => values(of ?? {}).reduce((total, each) => total + what(each), 0)

// -- reading

// The daemon's response and its text. Throws an Error with a readable message.
async function ask(path) {
  try {
    const headers = key ? { authorization: `Bearer ${key}` } : {}
    const answer = await fetch(path, { headers, signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" })
    return [answer, await answer.text()]
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? `no response within ${PATIENCE_MS / 1000} s` : "it cannot be reached")
  }
}

// The JSON of a successful response. For any other, throws an Error with the daemon's message.
async function read(path) {
  const [answer, text] = await ask(path)
  if (!answer.ok) throw new Error(refusal(text).message ?? `it responded with HTTP ${answer.status}`)
  return JSON.parse(text)
}

// The error object in the body of a response; empty if there is none.
function refusal(text) {
  try {
    return JSON.parse(text).error ?? {}
  } catch {
    return {}
  }
}

const arrived = {}
let calls = 0

// Begin a request to the daemon. Call the returned function when its response has arrived. It returns whether to show
// the response: false if the response to a later request with this name has arrived already.
function newest(name) {
  const mine = ++calls
  return () => mine > (arrived[name] ?? 0) && Boolean(arrived[name] = mine)
}

// -- formatting

const plain = new Intl.NumberFormat("en")
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 })
const number = n => (n < 10000 ? plain : compact).format(n)
const rate = n => n && n < 10 ? n.toFixed(1) : number(Math.round(n))
const dollars = n => n === 0 ? "$0" : n < 0.01 ? "< $0.01" : n < 1000 ? `$${n.toFixed(2)}` : `$${number(Math.round(n))}`
const bytes = n => n < 1e6 ? `${Math.ceil(n / 1e3)} kB` : `${(n / 1e6).toFixed(1)} MB`
const percent = (part, whole) => whole ? `${+(100 * part / whole).toPrecision(2)} %` : "–"
const seconds = s => s < 1 ? `${Math.round(s * 1000)} ms` : s < 10 ? `${s.toFixed(1)} s` : `${Math.round(s)} s`
const brief = text => text.length > 80 ? `${text.slice(0, 50)}…${text.slice(-25)}` : text
const bad = n => n ? [number(n), "bad"] : "0"
const warn = n => n ? [number(n), "warn"] : "0"

function lasting(s) {
  const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60]
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min` : `${Math.floor(s)} s`
}

// -- showing

function say(node, text) {
  if (node.textContent !== text) node.textContent = text
}

// Hide the columns of a table that contain no known value.
function hideUnknown(id) {
  const rows = [...$(id).tBodies[0].rows]
  for (const [i, head] of [...$(id).rows[0].cells].entries()) {
    const cells = rows.flatMap(row => row.cells[i] ?? [])
    const unknown = cells.every(cell => cell.textContent === "–")
    for (const cell of [head, ...cells]) cell.hidden = unknown
  }
}

// A cell is a text or [text, class]. Nodes are kept, so that the selection and the scroll position survive.
function fill(id, rows, without) {
  const table = $(id)
  const body = table.tBodies[0]
  const heads = [...table.rows[0].cells]
  table.tHead.hidden = !rows.length
  if (!rows.length) rows = [[[without, "none"]]]
  while (body.rows.length > rows.length) body.deleteRow(-1)
  rows.forEach((cells, at) => {
    const row = body.rows[at] ?? body.insertRow()
    while (row.cells.length > cells.length) row.deleteCell(-1)
    cells.forEach((cell, i) => {
      const td = row.cells[i] ?? row.insertCell()
      const [text, look] = Array.isArray(cell) ? cell : [cell, cell === "0" || cell === "–" ? "none" : ""]
      td.className = look
      td.dataset.head = heads[i].firstChild.data
      say(td, text)
    })
  })
}
