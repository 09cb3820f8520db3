// Stored responses and the WebSocket by the official SDK for Node, on every kind of end.
import { createRequire } from "node:module";
import assert from "node:assert";

const [url, key, modules] = process.argv.slice(2);
const require = createRequire(modules + "/");
const OpenAI = require("openai").OpenAI;
const { ResponsesWS } = require("openai/resources/responses/ws");

const client = new OpenAI({ baseURL: url + "/v1", apiKey: key, maxRetries: 0 });
const model = "fake/fake-1";
const tools = [{ type: "function", name: "weather", parameters: { type: "object", properties: {} }, strict: false }];
const terminal = ["response.completed", "response.incomplete", "response.failed"];
const ends = {
  "say Hello there": ["completed", "response.completed"],
  "call weather": ["completed", "response.completed"],
  "cut Half": ["incomplete", "response.incomplete"],
  "break Half": ["failed", "response.failed"],
  "hang Half": ["cancelled", "response.incomplete"],
};

const textOf = (events) =>
  events.filter((e) => e.type === "response.output_text.delta").map((e) => e.delta).join("");

async function read(socket, messages, cancels) {
  const events = [];
  for (;;) {
    const { value, done } = await messages.next();
    assert(!done, "the connection ended in mid-response");
    if (value.type === "error") throw value.error;
    if (value.type !== "message" || value.message.type.startsWith("llm-runtime:")) continue;
    const event = value.message;
    events.push(event);
    if (cancels && event.type === "response.output_text.delta" && event.delta.endsWith("…"))
      socket.send({ type: "response.cancel", response_id: events[0].response.id });
    if (terminal.includes(event.type)) return events;
  }
}

for (const [asked, [status, lastType]] of Object.entries(ends)) {
  const socket = new ResponsesWS(client);
  const messages = socket.stream();
  socket.send({ type: "response.create", model, input: asked, tools });
  const events = await read(socket, messages, asked.startsWith("hang"));
  const last = events.at(-1);
  assert.deepEqual([last.type, last.response.status], [lastType, status]);
  socket.send({ type: "response.resume", response_id: last.response.id, starting_after: 2 });
  assert.deepEqual((await read(socket, messages, false)).at(-1).response, last.response);
  socket.close();

  const id = last.response.id;
  const found = await client.responses.retrieve(id);
  assert.deepEqual([found.status, found.output, found.usage], [status, last.response.output, last.response.usage]);
  for (const after of [0, 1, last.sequence_number, last.sequence_number + 100]) {
    const rest = [];
    for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: after })) rest.push(event);
    assert.deepEqual(rest.at(-1), last);
    if (after < last.sequence_number)
      assert.equal(textOf(rest), textOf(events.filter((e) => e.sequence_number > after)));
  }
  const items = await client.responses.inputItems.list(id);
  assert.equal(items.data[0].content[0].text, asked);
  await client.responses.delete(id);
  await assert.rejects(client.responses.retrieve(id), OpenAI.NotFoundError);
}
console.log("passed");
