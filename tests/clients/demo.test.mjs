// The demo does not show what others do, or loses what was typed into it.

import assert from 'node:assert/strict'
import { startBrowser, visitDemo, writeTogether } from './browser.mjs'
import { eventually, freePort, story } from './harness.mjs'

/** Who closed her page is gone for the others after at most this: milliseconds, with some for a busy machine. */
const GONE = 3_000 + 2_000

/** A small phone held upright. */
const PHONE = { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true }

const DOCUMENT = 'team/a page of ours'

story('two people write on one page and see each other', async ({ serve, afterwards }) => {
  const browser = await startBrowser()
  afterwards(() => browser.close())
  const server = await serve()
  const alice = await visitDemo(browser, server, DOCUMENT, { name: 'Alice', color: '#c84240' })
  const bob = await visitDemo(browser, server, DOCUMENT, { name: 'Bob' })

  assert.equal(await alice.page.getByTestId('document-name').innerText(), DOCUMENT)
  await writeTogether(alice, bob)

  await alice.presses('Home', 'Shift+Control+ArrowRight', 'Control+b')
  await eventually(async () => assert.equal((await bob.editor.locator('strong').innerText()).trim(), 'Hello'))

  await bob.leaves()
  await eventually(async () => assert.deepEqual(await alice.people(), ['Alice you']), { within: GONE })
  await eventually(async () => assert.deepEqual(await alice.carets(), []))
  assert.deepEqual([...alice.complaints(), ...bob.complaints()], [])
})

story('what was typed without the server survives a reload and arrives later', async ({ serve, afterwards }) => {
  const browser = await startBrowser()
  afterwards(() => browser.close())
  const server = await serve({ port: await freePort() })
  const alice = await visitDemo(browser, server, DOCUMENT, { name: 'Alice' })
  await alice.pageIsKept()
  await alice.types('Written at home. ')
  const bob = await visitDemo(browser, server, DOCUMENT, { name: 'Bob' })
  await bob.reads('Written at home. ')

  assert.equal((await server.stop()).code, 0)
  await alice.isOffline()
  await alice.types('Written on a train.')
  await alice.reads('Written at home. Written on a train.')
  await alice.hasKeptEverything()
  await alice.reloads()
  await alice.reads('Written at home. Written on a train.')

  await server.start()
  await bob.reads('Written at home. Written on a train.')
  await alice.isConnected()
  for (const one of [alice, bob]) assert.deepEqual(one.complaints({ serverWasAway: true }), [])
})

story('nothing is wider than a phone', async ({ serve, afterwards }) => {
  const browser = await startBrowser()
  afterwards(() => browser.close())
  const server = await serve()
  const alice = await visitDemo(browser, server, `notes-${'long'.repeat(20)}`, { name: 'Alice', ...PHONE })
  assert.equal(await alice.scrollsSideways(), false, 'the empty page')

  const long = 'a'.repeat(120)
  await alice.types(long)
  await visitDemo(browser, server, `notes-${'long'.repeat(20)}`, { name: `Bob ${'Longname'.repeat(4)}` })
  await eventually(async () => assert.equal((await alice.people()).length, 2))
  assert.equal(await alice.scrollsSideways(), false, 'with a long word, and somebody with a long name')
})
