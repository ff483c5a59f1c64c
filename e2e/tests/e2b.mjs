// What a user of E2B does in a day, with the unmodified SDK, in real sandboxes.
import assert from 'node:assert'
import { createHash, randomBytes } from 'node:crypto'
import http from 'node:http'
import { Sandbox } from 'e2b'

const until = async (so) => {
  for (const end = Date.now() + 30_000; !(await so()); await new Promise((go) => setTimeout(go, 10)))
    assert(Date.now() < end, 'patience is over')
}
const digest = (bytes) => createHash('sha256').update(bytes).digest('hex')
const refused = (name, call) => assert.rejects(call, (error) => error.name === name || assert.fail(`${error.name}: ${error.message}`))

const s = await Sandbox.create({ timeoutMs: 120_000, metadata: { of: 'this test in JavaScript' }, envs: { GIVEN: 'yes' } })
const run = (command, options) => s.commands.run(command, options)

// Commands.
assert.equal((await run('echo $GIVEN $MORE; id -un; pwd', { envs: { MORE: 'too' }, cwd: '/tmp' })).stdout, 'yes too\nuser\n/tmp\n')
assert.equal((await run('id -u', { user: 'root' })).stdout, '0\n')
await assert.rejects(run('echo no >&2; exit 3'), (error) => error.exitCode === 3 && error.stderr === 'no\n')
await refused('TimeoutError', run('sleep 60', { timeoutMs: 500 }))
await refused('InvalidArgumentError', run('true', { cwd: '/nowhere' }))
assert.equal((await run("head -c 3000000 /dev/zero | tr '\\0' x")).stdout.length, 3_000_000)

let heard = ''
const cat = await run('cat', { background: true, stdin: true, onStdout: (text) => { heard += text } })
await s.commands.sendStdin(cat.pid, 'typed\n')
await until(() => heard === 'typed\n')
assert((await s.commands.list()).some((process) => process.pid === cat.pid))
assert(await s.commands.kill(cat.pid))
assert(!(await s.commands.kill(999_999)))
await assert.rejects(cat.wait())

const numbers = await Promise.all(Array.from({ length: 64 }, async (_, n) => (await run(`echo ${n}`)).stdout))
assert.deepEqual(numbers, Array.from({ length: 64 }, (_, n) => `${n}\n`))

// A terminal.
let seen = ''
const terminal = await s.pty.create({ cols: 80, rows: 24, onData: (data) => { seen += new TextDecoder().decode(data) } })
await s.pty.resize(terminal.pid, { cols: 61, rows: 17 })
await s.pty.sendInput(terminal.pid, new TextEncoder().encode('stty size; echo $TERM; exit 7\n'))
await assert.rejects(terminal.wait(), (error) => error.exitCode === 7)
assert(seen.includes('17 61') && seen.includes('xterm-256color'), seen)

// Files.
const content = randomBytes(8 << 20)
await s.files.write('large', content.buffer)
assert.equal(digest(await s.files.read('large', { format: 'bytes' })), digest(Buffer.from(content.buffer)))
assert(await s.files.makeDir('a/b'))
assert(!(await s.files.makeDir('a/b')))
await s.files.write([{ path: 'a/x', data: '1' }, { path: 'a/b/y', data: '2' }])
assert.deepEqual((await s.files.list('a', { depth: 2 })).map((entry) => entry.name).sort(), ['b', 'x', 'y'])
await s.files.rename('a/x', 'a/z')
assert(await s.files.exists('a/z'))
assert.equal((await s.files.getInfo('a/z')).owner, 'user')
await s.files.remove('a')
await assert.rejects(s.files.read('a/z'), (error) => /NotFoundError$/.test(error.name))
const changed = []
const watch = await s.files.watchDir('/home/user', (event) => changed.push(event.name))
await s.files.write('watched', 'now')
await until(() => changed.includes('watched'))
await watch.stop()
const signed = await s.downloadUrl('watched', { useSignatureExpiration: 60_000 })
assert.equal(await (await fetch(signed)).text(), 'now')

// A port.
await run('python3 -m http.server 8123 --bind 127.0.0.1', { background: true })
const { hostname, port } = new URL(process.env.E2B_API_URL)
const page = () => new Promise((done, fail) => {
  const headers = { 'E2b-Sandbox-Id': s.sandboxId, 'E2b-Sandbox-Port': '8123' }
  const asked = http.get({ hostname, port, path: '/watched', headers }, (answer) => {
    const parts = []
    answer.on('data', (part) => parts.push(part)).on('end', () => done(answer.statusCode === 200 && String(Buffer.concat(parts)) === 'now'))
  })
  asked.on('error', fail)
})
await until(page)

// Its life.
assert.deepEqual((await Sandbox.list({ query: { metadata: { of: 'this test in JavaScript' } } }).nextItems()).map((one) => one.sandboxId), [s.sandboxId])
await s.setTimeout(300_000)
const memory = await run('x=remembered; echo on; read line; echo $x; sleep 60', { background: true, stdin: true, onStdout: (text) => { heard += text } })
await (s.pause ?? s.betaPause).call(s)
assert(!(await s.isRunning()))
const again = await Sandbox.connect(s.sandboxId)
await again.commands.sendStdin(memory.pid, '\n')
assert.equal((await again.commands.run('cat watched')).stdout, 'now')
await until(() => heard.includes('remembered'))
assert(await s.kill())
assert(!(await s.isRunning()))
console.log('all is well')
process.exit(0)
