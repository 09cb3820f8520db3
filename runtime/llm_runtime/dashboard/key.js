// The key: the page asks for it if the daemon needs one, and keeps it until the tab is closed or the key is changed.

const KEPT = "llm-runtime key" // in the tab's own storage: it survives a reload, and goes with the tab
let key = sessionStorage.getItem(KEPT) ?? ""

function keep(given) {
  key = given
  if (key) sessionStorage.setItem(KEPT, key)
  else sessionStorage.removeItem(KEPT)
}

// Whether the response says that another key is needed. A key with metrics_only is not enough here.
const needsKey = (answer, text) => [401, 429].includes(answer.status) || refusal(text).code === "not_allowed"

function askForKey(answer, text) {
  const wait = answer.headers.get("retry-after")
  const why = answer.status === 403 ? refusal(text).message : key && "This key is not accepted."
  say($("refusal"), wait ? `Too many wrong keys: wait ${wait} s.` : why)
  keep("")
  appear("locked", "llm-runtime")
  $("key").focus()
}

$("login").addEventListener("submit", event => {
  event.preventDefault()
  keep($("key").value)
  $("key").value = ""
  say($("refusal"), "")
  if (samples.length) location.reload() // so that nothing remains that another key may see
  else refresh()
})

$("leave").addEventListener("click", () => {
  keep("")
  location.reload()
})
