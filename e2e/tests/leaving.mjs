// Secrets in rules that come while a sandbox lives. OUTSIDE speaks TLS, shows the field `authorization` that it was
// sent, and the server trusts it.
import assert from 'node:assert'
import { Sandbox, Secret } from 'e2b'

if (!Sandbox.prototype.updateNetwork || !Secret) {
  console.log('this release does not change networks, or knows no secrets')
  process.exit(77)
}

const outside = process.env.OUTSIDE
const ask = `unset no_proxy NO_PROXY; curl -s -m 20 https://${outside}/ || echo failed $?`
const rules = (name) => ({
  rules: { [outside]: [{ transform: { headers: { authorization: `Bearer ${Secret.fill(name)}` } } }] },
})
const told = async (sandbox) => (await sandbox.commands.run(ask)).stdout.trim()

await Secret.create('one', 'value-of-the-first')
await Secret.create('two', 'value-of-the-second')
const sandbox = await Sandbox.create({ timeoutMs: 120_000 })
try {
  assert.equal(await told(sandbox), 'failed 60')
  await sandbox.updateNetwork(rules('one'))
  assert.equal(await told(sandbox), 'Bearer [secret one]')
  await sandbox.updateNetwork(rules('two'))
  assert.equal(await told(sandbox), 'Bearer [secret two]')
  await assert.rejects(() => sandbox.updateNetwork(rules('three')), /400.*three/)
  await sandbox.updateNetwork({})
  assert.equal(await told(sandbox), 'none')
} finally {
  await sandbox.kill()
}
