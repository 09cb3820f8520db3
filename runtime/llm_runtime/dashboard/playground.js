// The playground: a conversation over one WebSocket, like that of any client. Members are shown side by side.

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/ // the characters that RFC 9110 allows in a subprotocol

let socket = null
let connecting = null // the promise of the socket while it is being opened
let turn = null // the turn in progress
let last = null // the id of the response that the next message continues; only its own connection knows it
let conversation = [] // the messages until now, for another connection

// The open socket. Throws an Error with a readable message.
function connected() {
  if (socket?.readyState === WebSocket.OPEN) return Promise.resolve(socket)
  if (key && !TOKEN.test(key)) throw new Error("A browser can send a key over WebSocket only if it is made of letters, digits and !#$%&'*+.^_`|~-")
  // A browser cannot set headers on a WebSocket, so the key is sent as a subprotocol. The server accepts the other one.
  const protocols = key ? ["llm-runtime", `openai-insecure-api-key.${key}`] : []
  return connecting ??= dial(protocols).finally(() => connecting = null)
}

function dial(protocols) {
  const opened = new WebSocket(new URL("v1/responses", location.href.replace(/^http/, "ws")), protocols)
  return new Promise((resolve, reject) => {
    opened.onopen = () => resolve(socket = opened)
    opened.onmessage = ({ data }) => socket === opened && turn?.hear(JSON.parse(data))
    opened.onclose = ({ reason }) => {
      const why = reason || "the connection was closed"
      reject(new Error(why))
      if (socket !== opened) return
      socket = last = null
      turn?.fail(why)
    }
  })
}

function element(tag, look, text = "") {
  return Object.assign(document.createElement(tag), { className: look, textContent: text })
}

class Turn {
  constructor(asked) {
    this.asked = asked
    this.began = performance.now()
    this.first = null
    this.members = new Map()
    this.seats = element("div", "members")
    this.thought = element("p", "thought")
    this.text = element("p", "answer")
    this.facts = element("p", "facts", "waiting …")
    $("dialogue").append(element("p", "asked", asked), this.seats, this.thought, this.text, this.facts)
  }

  hear(event) {
    switch (event.type) {
      case "response.created":
        this.id = event.response.id
        break
      case "response.output_text.delta":
      case "response.refusal.delta":
        this.add(this.text, event.delta)
        break
      case "response.reasoning_text.delta":
      case "response.reasoning_summary_text.delta":
        this.add(this.thought, event.delta)
        break
      case "llm-runtime:restarted":
        this.text.textContent = this.thought.textContent = ""
        break
      case "llm-runtime:member.started":
        this.seat(event.member)
        break
      case "llm-runtime:member.delta":
        this.add(this.seat(event.member), event.delta)
        break
      case "llm-runtime:member.deltas":
        for (const { member, delta } of event.deltas) this.add(this.seat(member), delta)
        break
      case "llm-runtime:member.done":
        this.seat(event.member).title = `${number(event.usage?.output_tokens ?? 0)} tokens`
        break
      case "llm-runtime:member.failed":
        this.seat(event.member).append(element("b", "bad", ` ${event.error.message}`))
        break
      case "response.completed":
      case "response.incomplete":
      case "response.failed":
        this.end(event.response)
        break
      case "error":
        this.fail(event.error?.message ?? event.message)
    }
  }

  add(node, delta) {
    this.first ??= performance.now()
    node.append(delta)
    node.scrollIntoView({ block: "nearest" })
  }

  // The element for a member's text.
  seat(name) {
    if (!this.members.has(name)) {
      const seat = element("section", "member")
      const words = element("p", "answer")
      seat.append(element("h3", "", name), words)
      this.seats.append(seat)
      this.members.set(name, words)
    }
    return this.members.get(name)
  }

  end(response) {
    const about = response.llm_runtime ?? {}
    if (response.error) return this.fail(response.error.message)
    const took = seconds((performance.now() - this.began) / 1000)
    const first = this.first ? `first token after ${seconds((this.first - this.began) / 1000)}` : "no token"
    const { input_tokens = 0, output_tokens = 0 } = response.usage ?? {}
    const facts = [response.model, first, `${took} in total`, `${number(input_tokens)} tokens in, ${number(output_tokens)} out`]
    facts.push(typeof about.cost === "number" ? dollars(about.cost) : "price unknown")
    if (response.status !== "completed") facts.unshift(about.incomplete_reason ?? response.incomplete_details?.reason ?? response.status)
    for (const { parameter, action } of about.adjusted ?? []) facts.push(`${parameter}: ${action}`)
    if (response.status === "completed") this.keep(response.id)
    this.close(facts.join(" · "))
  }

  keep(id) {
    last = id
    const answer = this.text.textContent
    conversation.push({ role: "user", content: this.asked }, ...answer ? [{ role: "assistant", content: answer }] : [])
  }

  fail(why) {
    this.facts.classList.add("bad")
    this.close(why)
  }

  close(words) {
    say(this.facts, words)
    this.facts.scrollIntoView({ block: "nearest" })
    if (turn !== this) return
    turn = null
    $("stop").hidden = true
    $("send").disabled = false
    $("asked").focus()
  }
}

async function send() {
  const asked = $("asked").value
  turn = new Turn(asked)
  $("asked").value = ""
  $("send").disabled = true
  $("stop").hidden = false
  const request = { type: "response.create", model: $("chosen").value, store: false, llm_runtime: { stream_members: true } }
  const mine = turn
  try {
    const opened = await connected()
    if (turn !== mine) return // it was stopped before there was a connection
    const input = [{ role: "user", content: asked }]
    const words = last ? { previous_response_id: last, input } : { input: [...conversation, ...input] }
    opened.send(JSON.stringify({ ...request, ...words }))
  } catch (error) {
    mine.fail(error.message)
  }
}

function stop() {
  if (turn?.id) socket?.send(JSON.stringify({ type: "response.cancel", response_id: turn.id }))
  else hangUp()
}

// Close the connection, which ends its requests. Later events are ignored.
function hangUp() {
  socket?.close()
  socket = last = null
  turn.fail("stopped")
}

$("asking").addEventListener("submit", event => {
  event.preventDefault()
  if (!turn) send()
})
$("asked").addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("asking").requestSubmit()
})
$("stop").addEventListener("click", stop)
$("anew").addEventListener("click", () => {
  if (turn) hangUp()
  last = null
  conversation = []
  $("dialogue").replaceChildren()
  $("asked").focus()
})
