// The JavaScript of a context: reads a line of JSON for each execution from descriptor 3, runs the code,
// and says there what comes of it, as lines of JSON. It is the code's own process, so nothing here is a
// wall: what must hold is held by the guest that reads. `require` and `language` are given.
'use strict';
const vm = require('vm');
const net = require('net');
const util = require('util');
const path = require('path');
const module_ = require('module');
const { Worker } = require('worker_threads');
const { parse: parseScript } = require('internal/deps/acorn/acorn/dist/acorn');
const { internalBinding } = require('internal/test/binding');

const RESULT_MAX = 10 << 20; // Bytes of one result.
const parseJson = JSON.parse;
const toJson = JSON.stringify;
const soon = setImmediate;
const channel = new net.Socket({ fd: 3, readable: true, writable: true });
let count = 0;
let interrupt = null; // Ends what is awaited.
let raised = null; // Rejects the execution for an error that nobody caught.

function send(message) {
  channel.write(toJson(message) + '\n');
}

// --- Results ---

const MIMES = {
  'text/plain': 'text', 'text/html': 'html', 'text/markdown': 'markdown', 'image/svg+xml': 'svg',
  'image/png': 'png', 'image/jpeg': 'jpeg', 'application/pdf': 'pdf', 'text/latex': 'latex',
  'application/json': 'json', 'application/javascript': 'javascript',
};

function textOf(value) {
  const text = util.inspect(value, { maxStringLength: Infinity });
  // E2B's clients get a string without its quotes.
  return typeof value === 'string' ? text.slice(1, -1) : text;
}

function show(value, isMain, bundle) {
  const result = { is_main_result: isMain };
  for (const [mime, one] of Object.entries(bundle ?? { 'text/plain': textOf(value) })) {
    const key = MIMES[mime];
    if (key) result[key] = key === 'json' ? one : Buffer.isBuffer(one) ? one.toString('base64') : String(one);
    else (result.extra ??= {})[mime] = one;
  }
  if (Buffer.byteLength(toJson(result)) > RESULT_MAX) {
    const why = 'a result has at most 10 MiB; write it to a file and download that';
    send({ error: { name: 'ResultTooLarge', value: why, traceback: '' } });
  } else {
    send({ result });
  }
}

// Shows values; with a plain object of MIME types and `{ raw: true }`, those.
globalThis.display = (value, options) => show(value, false, options?.raw ? value : undefined);

// --- Errors ---

function fail(error) {
  const isError = util.types.isNativeError(error) || error instanceof Error;
  const name = isError ? String(error.name) : 'Error';
  const value = isError ? String(error.message) : textOf(error);
  let trace = isError && typeof error.stack === 'string' ? error.stack : `${name}: ${value}`;
  // What stands below the cell is how we came there.
  const lines = trace.split('\n');
  const last = lines.findLastIndex((line) => line.includes('<cell '));
  const ours = lines.findIndex((line, at) => at > last && /^\s+at /.test(line) && /node:|\[eval\]|<anonymous>|evalmachine/.test(line));
  if (ours > 0) trace = lines.slice(0, ours).join('\n');
  send({ error: { name, value, traceback: trace.slice(0, 256 << 10) } });
}

// --- From a cell to a script ---

// The names that a pattern binds.
function namesOf(pattern, names) {
  switch (pattern?.type) {
    case 'Identifier': names.push(pattern.name); break;
    case 'ObjectPattern': pattern.properties.forEach((one) => namesOf(one.value ?? one.argument, names)); break;
    case 'ArrayPattern': pattern.elements.forEach((one) => namesOf(one, names)); break;
    case 'AssignmentPattern': namesOf(pattern.left, names); break;
    case 'RestElement': namesOf(pattern.argument, names); break;
  }
  return names;
}

// Whether a node awaits outside of every function in it.
function awaits(node) {
  if (!node || typeof node.type !== 'string') return false;
  if (/Function/.test(node.type) || node.type === 'PropertyDefinition' || node.type === 'StaticBlock') return false;
  if (node.type === 'AwaitExpression' || (node.type === 'ForOfStatement' && node.await)) return true;
  return Object.values(node).some((value) => (Array.isArray(value) ? value.some(awaits) : awaits(value)));
}

function importOf(node) {
  const source = node.source.raw;
  const parts = node.specifiers.map((one) => {
    if (one.type === 'ImportNamespaceSpecifier') return null;
    const from = one.type === 'ImportDefaultSpecifier' ? 'default' : one.imported.name ?? one.imported.value;
    return `${toJson(from)}: ${one.local.name}`;
  });
  const whole = node.specifiers.find((one) => one.type === 'ImportNamespaceSpecifier');
  const named = parts.filter(Boolean).join(', ');
  const name = whole ? `(${whole.local.name} = await import(${source}))` : `await import(${source})`;
  return named ? `({ ${named} } = ${name});` : `${name};`;
}

// Names of a cell's top level belong to all cells, and any cell may give them anew: they become `var`.
// Where something is awaited, the cell becomes an asynchronous function, and its names are declared
// before it. Lines stay where they are.
function scriptOf(code) {
  const options = { ecmaVersion: 'latest', allowAwaitOutsideFunction: true, allowImportExportEverywhere: true, allowHashBang: true };
  const body = parseScript(code, options).body;
  const isAsync = body.some((node) => node.type === 'ImportDeclaration' || awaits(node));
  const edits = [];
  const names = [];
  const functions = [];
  for (const node of body) {
    const edit = (start, end, text) => edits.push({ start, end, text });
    if (node.type === 'ImportDeclaration') {
      node.specifiers.forEach((one) => names.push(one.local.name));
      edit(node.start, node.end, importOf(node) + '\n'.repeat(code.slice(node.start, node.end).split('\n').length - 1));
    } else if (node.type === 'ClassDeclaration') {
      names.push(node.id.name);
      edit(node.start, node.start, `${isAsync ? '' : 'var '}${node.id.name} = `);
      edit(node.end, node.end, ';');
    } else if (node.type === 'VariableDeclaration' && (isAsync || node.kind !== 'var')) {
      node.declarations.forEach((one) => namesOf(one.id, names));
      if (!isAsync) {
        edit(node.start, node.start + node.kind.length, 'var');
        continue;
      }
      edit(node.start, node.start + node.kind.length, ';');
      for (const one of node.declarations) {
        edit(one.start, one.start, '(');
        edit(one.end, one.end, one.init ? ')' : ' = undefined)');
      }
    } else if (node.type === 'FunctionDeclaration' && isAsync) {
      names.push(node.id.name);
      functions.push(node.id.name);
    } else if (node.type === 'ExpressionStatement' && isAsync && node === body.at(-1)) {
      edit(node.start, node.expression.start, `return (${code.slice(node.start, node.expression.start)}`);
      edit(node.expression.end, node.end, ')');
    }
  }
  let text = code;
  edits.sort((one, other) => other.start - one.start || other.end - one.end);
  for (const { start, end, text: put } of edits) text = text.slice(0, start) + put + text.slice(end);
  if (isAsync) {
    const declared = [...new Set(names)].map((name) => `var ${name};`).join('');
    const hoisted = functions.map((name) => `globalThis[${toJson(name)}] = ${name};`).join('');
    text = `${declared}(async () => {${hoisted}${text}\n})()`;
  }
  const last = body.at(-1);
  return { text, isAsync, hasValue: last?.type === 'ExpressionStatement' };
}

// --- Running ---

const loader = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER;

function stripped(code) {
  if (language !== 'typescript') return code;
  if (typeof module_.stripTypeScriptTypes !== 'function') {
    const error = new Error(`Node.js ${process.version} cannot take the types off TypeScript; 22.13 or newer can`);
    error.name = 'UnsupportedLanguage';
    error.stack = `${error.name}: ${error.message}`;
    throw error;
  }
  return module_.stripTypeScriptTypes(code);
}

async function valueOf(code) {
  const { text, isAsync, hasValue } = scriptOf(stripped(code));
  const script = new vm.Script(text, {
    filename: `<cell ${count}>`,
    importModuleDynamically: loader ?? ((name) => import(name)),
  });
  if (isAsync) guard();
  // What runs without a pause is stopped by this alone: no handler of a signal is called meanwhile.
  const value = script.runInThisContext({ breakOnSigint: true, displayErrors: false });
  if (!isAsync && !hasValue) return undefined;
  if (util.types.isPromise(value)) guard();
  return value; // A promise is awaited by who awaits this, so that it can fail.
}

// --- Interrupts ---

// Where `process` has a listener for SIGINT, `breakOnSigint` takes it away while a script runs and puts it
// back, and the signal that comes in the moment between two handlers ends the process. So there is none:
// the handler of the watchdog of scripts is in place from here on and is never exchanged. It stops a
// script at once; of a signal that finds none it keeps that it came.
const watchdog = internalBinding('contextify');
const LOOK_MS = 20;

watchdog.startSigintWatchdog();

// Whether a signal has found no script since the last look. Whoever stops a watchdog is told this, and the
// other one holds the handler.
function wasInterrupted() {
  watchdog.startSigintWatchdog();
  return watchdog.stopSigintWatchdog();
}

// Code that listens too would put its own handler in the place of that one: its listener is kept, and no
// handler is made.
for (const listener of process.rawListeners('newListener')) {
  process.removeListener('newListener', listener);
  process.on('newListener', (name, ...rest) => (name === 'SIGINT' ? undefined : listener.call(process, name, ...rest)));
}

// Code that goes on after an `await`, or that a timer calls, is no script any more, and that handler does not
// stop it. A thread does, through V8's inspector, when this one answers to nothing and the signal has come. It
// is made with the first execution that awaits something; until then nobody pays for it.
const BLOCKED_MS = 250;
const GUARD = `
const { workerData: shared } = require('worker_threads');
const { internalBinding } = require('internal/test/binding');
const watchdog = internalBinding('contextify');
const session = new (require('inspector').Session)();
session.connectToMainThread();
for (;;) {
  Atomics.wait(shared, 0, 0); // Until something runs.
  const beat = Atomics.load(shared, 1);
  Atomics.wait(shared, 2, 0, ${BLOCKED_MS});
  if (Atomics.load(shared, 0) === 0 || Atomics.load(shared, 1) !== beat) continue;
  watchdog.startSigintWatchdog();
  if (!watchdog.stopSigintWatchdog()) continue;
  Atomics.store(shared, 3, 1);
  session.post('Runtime.terminateExecution');
}`;

// What is stopped does not take itself off the stack of asynchronous calls. Node ends a process for that
// unless it is told not to look, and the stack is emptied as after an error that nobody caught.
const calls = internalBinding('async_wrap');
calls.async_hook_fields[calls.constants.kCheck] = 0;

// Whether something runs; how often this thread has looked; nothing; whether something was stopped.
let shared = null;

function guard() {
  if (shared) return;
  shared = new Int32Array(new SharedArrayBuffer(16));
  Atomics.store(shared, 0, 1);
  try {
    new Worker(GUARD, { eval: true, workerData: shared, stdout: true, stderr: true }).unref();
  } catch {
    // Without a thread or an inspector the interpreter is killed when such code does not stop.
  }
}

function look() {
  if (shared) Atomics.add(shared, 1, 1);
  const wasStopped = shared && Atomics.exchange(shared, 3, 0) === 1;
  if (wasStopped) calls.clearAsyncIdStack();
  if (wasInterrupted() || wasStopped) interrupt?.();
}

function setRunning(is) {
  if (!shared) return;
  Atomics.store(shared, 3, 0);
  Atomics.store(shared, 0, is ? 1 : 0);
  Atomics.notify(shared, 0);
}

async function run({ code, env }) {
  count += 1;
  const before = Object.fromEntries(Object.keys(env).map((name) => [name, process.env[name]]));
  Object.assign(process.env, env);
  globalThis.require = module_.createRequire(path.join(process.cwd(), 'cell.js'));
  wasInterrupted(); // One that came between two executions is nobody's.
  setRunning(true);
  const looking = setInterval(look, LOOK_MS);
  try {
    const stop = new Promise((_, reject) => {
      interrupt = () => {
        const error = new Error('the execution was interrupted');
        error.name = 'KeyboardInterrupt';
        error.stack = `${error.name}: ${error.message}`;
        reject(error);
      };
      raised = reject;
    });
    stop.catch(() => {});
    // What the thread stops takes the frames below it along, so this function must be none of them: the thread may
    // have found a signal that came just before a script began.
    const begun = new Promise((resolve, reject) => soon(() => valueOf(code).then(resolve, reject)));
    const value = await Promise.race([begun, stop]);
    if (value !== undefined) show(value, true);
  } catch (error) {
    if (error?.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED') {
      fail(Object.assign(new Error('the execution was interrupted'), { name: 'KeyboardInterrupt', stack: 'KeyboardInterrupt: the execution was interrupted' }));
    } else {
      fail(error);
    }
  } finally {
    clearInterval(looking);
    setRunning(false);
    interrupt = null;
    raised = null;
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
  send({ end: {} });
}

// What nobody caught fails the execution in which it happens; between two it is only said.
for (const kind of ['uncaughtException', 'unhandledRejection']) {
  process.on(kind, (error) => (raised ? raised(error) : console.error(error)));
}
globalThis.module = { exports: {} };
globalThis.exports = globalThis.module.exports;

// What was stopped takes the jobs of promises with it that wait behind it (V8 empties their queue). So an
// execution is awaited, which is no such job, and not chained to the one before.
const waiting = [];
let isBusy = false;

async function runAll() {
  if (isBusy) return;
  isBusy = true;
  while (waiting.length > 0) await run(waiting.shift());
  isBusy = false;
}

let begun = [];
channel.on('data', (bytes) => {
  const at = bytes.lastIndexOf(10);
  begun.push(at < 0 ? bytes : bytes.subarray(0, at));
  if (at < 0) return;
  const lines = Buffer.concat(begun).toString().split('\n').filter(Boolean);
  begun = [bytes.subarray(at + 1)];
  waiting.push(...lines.map((line) => parseJson(line)));
  runAll();
});
channel.on('end', () => process.exit(0));
channel.on('error', () => process.exit(0));
send('ready');
