// What E2B's JavaScript client says about a network: lists when a sandbox is made, and others while it lives. The
// server was started with 127.0.0.1 open, and PORT answers there.
import assert from 'node:assert'
import { Sandbox } from 'e2b'

if (!Sandbox.prototype.updateNetwork) {
  console.log('this release does not change networks')
  process.exit(77)
}

const port = process.env.PORT
const all = '0.0.0.0/0'
const made = []

async function create(options) {
  const sandbox = await Sandbox.create({ timeoutMs: 120_000, ...options })
  made.push(sandbox)
  return sandbox
}

async function status(sandbox, host, more = '') {
  const line = `unset no_proxy NO_PROXY; curl -s ${more} -m 10 -o /dev/null -w '%{http_code}' http://${host}:${port}/; true`
  return (await sandbox.commands.run(line)).stdout.trim()
}

try {
  // Denied but for one; allowed entries count first.
  const some = await create({ network: { denyOut: ({ allTraffic }) => [allTraffic], allowOut: ['127.0.0.1'] } })
  assert.equal(await status(some, '127.0.0.1'), '200')
  assert.equal(await status(some, '127.0.0.1', '-p'), '200')
  assert.equal(await status(some, '127.0.0.2'), '403')
  const { network } = await some.getInfo()
  assert.deepEqual(network.allowOut, ['127.0.0.1'])
  assert.deepEqual(network.denyOut, [all])

  // Denied in one place only, and in a place that is allowed too.
  const most = await create({ network: { denyOut: ['127.0.0.1'] } })
  assert.equal(await status(most, '127.0.0.1'), '403')
  assert.equal(await status(most, '127.0.0.3'), '200')
  const both = await create({ network: { denyOut: ['127.0.0.0/8'], allowOut: ['127.0.0.1'] } })
  assert.equal(await status(both, '127.0.0.1'), '200')
  assert.equal(await status(both, '127.0.0.2'), '403')

  // Names; then everything else replaces what there was, at once.
  const names = await create({ network: { denyOut: [all], allowOut: ['localhost'] } })
  assert.equal(await status(names, '127.0.0.1'), '403')
  assert.equal(await status(names, 'localhost'), '200')
  await names.updateNetwork({ denyOut: ['127.0.0.1'] })
  assert.equal(await status(names, '127.0.0.1'), '403')
  assert.equal(await status(names, '127.0.0.3'), '200')
  await names.updateNetwork({})
  assert.equal(await status(names, '127.0.0.1'), '200')
  await names.updateNetwork({ allowInternetAccess: false })
  assert.equal(await status(names, '127.0.0.1'), '403')
  await Sandbox.updateNetwork(names.sandboxId, { allowOut: ['127.0.0.1'], denyOut: [all] })
  assert.equal(await status(names, '127.0.0.1'), '200')

  // One without a network gets one.
  const none = await create({ allowInternetAccess: false })
  assert.equal(await status(none, '127.0.0.1'), '000')
  await none.updateNetwork({})
  assert.equal(await status(none, '127.0.0.1'), '200')

  // What is no rule, or not known here, changes nothing.
  for (const wrong of [
    { denyOut: ['example.com'] },
    { allowOut: ['example.com'] },
    { allowOut: ['*.example.com'], denyOut: ['10.0.0.0/8'] },
  ]) {
    await assert.rejects(names.updateNetwork(wrong), /400/, JSON.stringify(wrong))
  }
  assert.equal(await status(names, '127.0.0.1'), '200')
} finally {
  for (const sandbox of made) await sandbox.kill()
}
