// What users of E2B's SDK for JavaScript do with templates, in real sandboxes.
import assert from 'node:assert'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { Sandbox, Template, waitForFile } from 'e2b'

const context = fs.mkdtempSync(path.join(os.tmpdir(), 'context-'))
fs.mkdirSync(path.join(context, 'folder'))
fs.writeFileSync(path.join(context, 'folder/test.txt'), 'a file')
fs.symlinkSync('test.txt', path.join(context, 'folder/near.txt'))
const start = () => Template({ fileContextPath: context }).fromBaseImage()

const build = async (template, alias, options = {}) => {
  const lines = []
  const info = await Template.build(template, { alias, ...options, onBuildLogs: (entry) => lines.push(entry.message) })
  return { info, log: lines.join('\n') }
}
try {
  await build(start(), 'first')
} catch (error) {
  assert(/save|stop what runs/.test(error.message), error)
  console.log('templates cannot be built here:', error.message)
  process.exit(77)
}

const recipe = start()
  .copy('folder/*', 'folder', { mode: 0o600 })
  .runCmd('cat folder/near.txt')
  .setEnvs({ WORD: 'given' })
  .setWorkdir('/app')
  .runCmd(['touch one', 'ls'])
  .setStartCmd('echo "$WORD" > /tmp/begun; sleep 600', waitForFile('/tmp/begun'))
const { info, log } = await build(recipe, 'js-env', { cpuCount: 1, memoryMB: 512 })
assert(info.templateId && info.buildId)
assert(log.includes('[builder 2/5] [stdout]: a file') && log.includes('[builder 5/5] [stdout]: one'), log)
assert((await build(recipe, 'js-env', { cpuCount: 1, memoryMB: 512 })).log.includes('CACHED [builder 5/5]'))

const sandbox = await Sandbox.create('js-env', { timeoutMs: 60_000 })
const shown = await sandbox.commands.run('pwd; echo $WORD; cat /tmp/begun; stat -c %a ~/folder/test.txt')
assert.equal(shown.stdout, '/app\ngiven\ngiven\n600\n')
await sandbox.kill()

await assert.rejects(
  build(start().skipCache().runCmd('echo before; exit 3'), 'js-fails'),
  (error) => error.name === 'BuildError' && error.message.includes('exit status 3'),
)
await assert.rejects(build(Template().fromImage('ubuntu:22.04'), 'js-image'), /ubuntu:22.04/)

const later = await Template.buildInBackground(start().skipCache().runCmd('sleep 1'), { alias: 'js-later' })
assert.equal((await Template.getBuildStatus(later)).status, 'building')
while ((await Template.getBuildStatus(later)).status === 'building') await new Promise((go) => setTimeout(go, 50))
assert.equal((await Template.getBuildStatus(later)).status, 'ready')
assert(await Template.aliasExists('js-later'))
assert(!(await Template.aliasExists('js-never')))
if (Template.assignTags) {
  const { tags } = await Template.assignTags('js-env:default', ['v1', 'stable'])
  assert.deepEqual(tags.sort(), ['stable', 'v1'])
  await Template.removeTags('js-env', 'stable')
  await assert.rejects(Template.removeTags('js-env', 'stable'))
  await (await Sandbox.create('js-env:v1', { timeoutMs: 60_000 })).kill()
}
