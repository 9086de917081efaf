// A stranger's client: npm socket.io-client, moved by JSON lines on stdin, telling what happens to it on stdout.
//   node foreign.mjs PACKAGE_JSON URL CA_FILE TRANSPORT
// Commands: {emit: [event, ...arguments], ask: id or null}, {raw: [event, ...arguments]},
// {text: whole message}, {acknowledge: answer to events from now on}; {binary: n} among arguments is n bytes.
// Must not know: pingmon's events and answers; the tests know them.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [packageJson, url, caFile, transport] = process.argv.slice(2);
const { io } = createRequire(packageJson)("socket.io-client");
const tell = (happened, more) => process.stdout.write(`${JSON.stringify({ happened, ...more })}\n`);

const socket = io(url, { transports: [transport], ca: readFileSync(caFile), reconnection: false });
socket.on("connect", () => tell("connect", {}));
socket.on("connect_error", (error) =>
  tell("connect_error", { message: error.message, detail: String(error.description?.message ?? error.description ?? "") }),
);
socket.on("disconnect", (reason) => tell("disconnect", { reason }));
// What it acknowledges events with where the server asks for that.
let acknowledgement = { ok: true };
socket.onAny((event, ...args) => {
  const reply = typeof args.at(-1) === "function" ? args.pop() : null;
  tell("event", { event, args });
  reply?.(acknowledgement);
});

const filled = (value) =>
  Array.isArray(value) ? value.map(filled) : Number.isInteger(value?.binary) ? Buffer.alloc(value.binary, 7) : value;
createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line);
    if (command.text !== undefined) {
      socket.io.engine.write(command.text);
      return;
    }
    if (command.acknowledge !== undefined) {
      acknowledgement = command.acknowledge;
      return;
    }
    const args = (command.raw ?? command.emit).map(filled);
    // Past the library's own list of reserved names: a stranger need not use this library.
    if (command.raw) socket.packet({ type: 2, data: args, options: { compress: false } });
    else if (command.ask === null) socket.emit(...args);
    else socket.emit(...args, (answer) => tell("answer", { ask: command.ask, answer }));
  })
  .on("close", () => process.exit(0));
