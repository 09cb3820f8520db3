// OpenAI's SDK for Node: openai_node.mjs NODE_MODULES URL KEY FOLDER MODEL FULL
import {createRequire} from "node:module";
import {readFileSync, writeFileSync} from "node:fs";
import {strict as assert} from "node:assert";

const [modules, url, key, folder, model, full] = process.argv.slice(2);
const OpenAI = createRequire(`${modules}/x.js`)("openai").default;
const client = new OpenAI({baseURL: `${url}/v1`, apiKey: key});
const file = `${folder}/notes.txt`;
const parameters = {type: "object", properties: {file_path: {type: "string"}, content: {type: "string"}}};
const said = (text) => [{role: "user", content: text}];

// chat: the SDK's own tool loop, whole and streamed
const write_file = (given) => (writeFileSync(given.file_path, given.content), "written");
const tools = [{type: "function", function: {name: "write_file", parameters, parse: JSON.parse, function: write_file}}];
const whole = client.chat.completions.runTools({model, messages: said(`[[edit ${file}]]`), tools});
assert.equal(await whole.finalContent(), "edited");
const bytes = readFileSync(file);
writeFileSync(file, "");
const streamed = client.chat.completions.runTools({model, messages: said(`[[edit ${file}]]`), tools, stream: true});
assert.equal(await streamed.finalContent(), "edited");
assert.deepEqual(readFileSync(file), bytes);
const again = await client.chat.completions.create({model, messages: [...streamed.messages, ...said("[[recall it]]")]});
assert.equal(again.choices[0].message.content, "recalled: edit recall");

// responses: a loop over previous_response_id
const flat = [{type: "function", name: "write_file", parameters, strict: false}];
writeFileSync(file, "");
let events = client.responses.stream({model, input: `[[edit ${file}]]`, tools: flat});
let response = await events.finalResponse();
const call = response.output.find((each) => each.type === "function_call");
write_file(JSON.parse(call.arguments));
assert.deepEqual(readFileSync(file), bytes);
const output = [{type: "function_call_output", call_id: call.call_id, output: "written"}];
response = await client.responses.create({model, input: output, previous_response_id: response.id, tools: flat});
assert.equal(response.output_text, "edited");
response = await client.responses.create({model, input: "[[recall it]]", previous_response_id: response.id});
assert.equal(response.output_text, "recalled: edit recall");
const items = await client.responses.inputItems.list(response.id);
assert(items.data.some((each) => each.type === "function_call_output"));
assert((await client.responses.inputTokens.count({model, input: "hi"})).input_tokens > 0);

// a turn that is left
const hanging = await client.chat.completions.create({model, messages: said("[[hang now]]"), stream: true});
for await (const chunk of hanging) if (chunk.choices[0]?.delta?.content) break;

// errors, streamed and whole, over both
for (const [kind, status] of [["rate_limited", 429], ["context_length", 400], ["bad_request", 400]])
  for (const stream of [false, true])
    for (const ask of [
      () => client.chat.completions.create({model, messages: said(`[[fail ${kind}]]`), stream}),
      () => client.responses.create({model, input: `[[fail ${kind}]]`, stream}),
    ]) {
      const error = await ask().then(() => assert.fail(kind), (found) => found);
      assert(error instanceof OpenAI.APIError, String(error));
      assert.equal(error.status, status, `${kind}: ${error}`);
      assert.match(error.message, /as asked for/);
    }
const stranger = new OpenAI({baseURL: `${url}/v1`, apiKey: `${key}x`});
const refused = await stranger.chat.completions.create({model, messages: said("hi")}).then(() => assert.fail(), (found) => found);
assert.equal(refused.status, 401, String(refused));

// the lists
const listed = (await client.models.list()).data.map((each) => each.id);
assert(listed.includes(model) && listed.includes("auto"));
assert.equal((await client.models.retrieve(model)).id, model);

// 40 s of silence, before and within a stream
const waits = async (verb, answer) => {
  let text = "";
  for await (const event of await client.responses.create({model, input: `[[${verb} now]]`, stream: true}))
    if (event.type === "response.output_text.delta") text += event.delta;
  assert.equal(text, answer);
};
const chatWaits = async (verb, answer) => {
  let text = "";
  for await (const chunk of await client.chat.completions.create({model, messages: said(`[[${verb} now]]`), stream: true}))
    text += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(text, answer);
};
if (full === "full")
  await Promise.all(
    [waits, chatWaits].flatMap((ask) => [ask("silent", "after silence"), ask("pause", "before after")]),
  );
console.log("passed");
