// Two pages on different nodes: somebody does not see what the other writes, or that she is there.

import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { startBrowser, visitDemo, writeTogether } from './browser.mjs'
import { pauseRedis, startNodes, startRedis } from './cluster.mjs'
import { eventually, story } from './harness.mjs'

/** Who closed her page is gone for the others after at most this: milliseconds, with some for a busy machine. */
const GONE = 3_000 + 2_000

/** Milliseconds in which Redis answers nobody. */
const PAUSE = 2_500

const DOCUMENT = 'team/a page on two nodes'

story('two people on different nodes write on one page and see each other', async (scene) => {
  const browser = await startBrowser()
  scene.afterwards(() => browser.close())
  const [one, other] = await startNodes(scene, 2)
  const alice = await visitDemo(browser, one, DOCUMENT, { name: 'Alice', color: '#c84240' })
  const bob = await visitDemo(browser, other, DOCUMENT, { name: 'Bob' })
  await writeTogether(alice, bob)

  await bob.leaves()
  await eventually(async () => assert.deepEqual(await alice.people(), ['Alice you']), { within: GONE })
  await eventually(async () => assert.deepEqual(await alice.carets(), []))
  assert.deepEqual([...alice.complaints(), ...bob.complaints()], [])
})

story('a page says that it is saved when it is, and not before', async (scene) => {
  const browser = await startBrowser()
  scene.afterwards(() => browser.close())
  const redis = await startRedis(scene)
  const server = await scene.serve({ flags: ['--redis', redis.url] })
  const alice = await visitDemo(browser, server, DOCUMENT, { name: 'Alice' })
  const bob = await visitDemo(browser, server, DOCUMENT, { name: 'Bob' })
  await alice.types('Hello')
  await eventually(async () => assert.equal(await alice.status(), 'Saved'))

  await pauseRedis(redis, PAUSE)
  const paused = Date.now()
  await alice.types(' Bob')
  await bob.reads('Hello Bob')
  while (Date.now() < paused + PAUSE - 500) {
    assert.equal(await alice.status(), 'Saving…')
    await pause(50)
  }
  await eventually(async () => assert.equal(await alice.status(), 'Saved'))
})

story('who moved to another node is there until her line breaks, and no longer', async (scene) => {
  const [one, other] = await startNodes(scene, 2)
  const alice = await scene.visit(one, 'notes', 'Alice')
  const bob = await scene.visit(one, 'notes', 'Bob')
  await eventually(() => assert.deepEqual(bob.sees(), ['Alice', 'Bob']))
  const left = []
  bob.awareness.on('change', ({ removed }) => left.push(...removed))

  alice.losesTheLine()
  alice.provider.serverUrl = `${other.url.replace('http', 'ws')}/ws`
  await eventually(() => !alice.provider.synced)
  await alice.isSynced()
  // Time enough for a removal that was only put off.
  await pause(GONE)
  assert.deepEqual(left, [], 'she was seen to leave')
  assert.deepEqual(bob.sees(), ['Alice', 'Bob'])

  alice.vanishes()
  await eventually(() => assert.deepEqual(bob.sees(), ['Bob']), { within: GONE })
})
