// Somebody gets in who may not, or changes what she may only read; or a stock client that is turned away comes back
// for ever, or loses what was written.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { startBrowser, visitDemo } from './browser.mjs'
import { eventually, story, token } from './harness.mjs'

const SECRET = randomBytes(48).toString('base64')

/** How long a client is watched that must not come back: y-websocket would try within 2.5 seconds. */
const WATCHED = 4_000

/** How the provider is told that it is not wanted, and how often it tried. */
function turnedAway(person) {
  const away = { closed: null, attempts: 0 }
  person.provider.on('closed', ({ code, reason }) => (away.closed = { code, reason }))
  person.provider.on('status', ({ status }) => (away.attempts += status === 'connecting'))
  return away
}

story('a client without a good token is told so once, and stays away', async ({ serve, invite }) => {
  const server = await serve({ variables: { QUIRE_SECRET: SECRET } })
  const other = randomBytes(48).toString('base64')
  const bad = [
    [{}, 4401, /a token is needed/],
    [{ token: token(other, 'mallory', '*', 'admin') }, 4401, /signature/],
    [{ token: token(SECRET, 'alice', 'plan', 'write', { ttl: 0 }) }, 4401, /expired/],
    [{ token: token(SECRET, 'alice', 'plans/*', 'write') }, 4403, /nothing on "plan"/],
  ]
  const people = bad.map(([params]) => {
    const person = invite(server, 'plan', null, { params, online: false })
    const away = turnedAway(person)
    person.connects()
    return { person, away }
  })
  await pause(WATCHED)
  for (const [index, { person, away }] of people.entries()) {
    const [, code, reason] = bad[index]
    assert.equal(away.closed?.code, code)
    assert.match(away.closed.reason, reason)
    assert.ok(away.attempts <= 1, `it tried ${away.attempts} times`)
    assert.equal(person.provider.synced, false)
  }
})

story('a session ends with its token, and goes on with a new one', async ({ serve, visit }) => {
  const server = await serve({ variables: { QUIRE_SECRET: SECRET } })
  const reading = { params: { token: token(SECRET, 'bob', 'plan', 'read') } }
  const bob = await visit(server, 'plan', 'Bob', reading)
  const writing = { params: { token: token(SECRET, 'alice', 'plan', 'write', { ttl: 3 }) } }
  const alice = await visit(server, 'plan', 'Alice', writing)
  const away = turnedAway(alice)
  alice.types('hello')
  await bob.reads('hello')
  await eventually(() => assert.equal(away.closed?.code, 4401))
  assert.match(away.closed.reason, /expired/)

  alice.types(', again')
  alice.provider.params.token = token(SECRET, 'alice', 'plan', 'write')
  alice.connects()
  await bob.reads('hello, again')
})

story('who may only read sees everything, is seen, and changes nothing', async ({ serve, visit }) => {
  const server = await serve({ variables: { QUIRE_SECRET: SECRET } })
  const alice = await visit(server, 'plan', 'Alice', { params: { token: token(SECRET, 'alice', '*', 'write') } })
  const bob = await visit(server, 'plan', 'Bob', { params: { token: token(SECRET, 'bob', '*', 'read') } })
  alice.types('hello')
  await bob.reads('hello')
  await eventually(() => assert.deepEqual(alice.sees(), ['Alice', 'Bob']))
  bob.types(', said Bob')
  bob.deletes(0, 2)
  bob.losesTheLine()
  await eventually(() => assert.equal(bob.provider.wsconnected && bob.provider.synced, true))
  alice.types(', world')
  await eventually(() => assert.match(bob.text.toString(), /world/))
  assert.equal(alice.text.toString(), 'hello, world')
  const response = await fetch(`${server.url}/api/documents/plan?format=text`, {
    headers: { connection: 'close', authorization: `Bearer ${token(SECRET, 'bob', '*', 'read')}` },
  })
  assert.equal(await response.text(), 'hello, world')
})

story('the demo takes its visitor from the token, and does not invite to write where that is in vain', async ({ serve, afterwards }) => {
  const browser = await startBrowser()
  afterwards(() => browser.close())
  const server = await serve({ variables: { QUIRE_SECRET: SECRET } })
  const alice = await visitDemo(browser, server, 'plan', { token: token(SECRET, 'Alice', 'plan', 'write') })
  const bob = await visitDemo(browser, server, 'plan', { token: token(SECRET, 'Bob', 'plan', 'read') })
  await eventually(async () => assert.deepEqual(await bob.people(), ['Alice', 'Bob you']))
  assert.ok(!alice.page.url().includes('token='), 'the address shows the token')
  await alice.types('Hello Bob')
  await bob.reads('Hello Bob')
  assert.equal(await bob.editor.locator('[contenteditable=true]').count(), 0)
  await alice.reloads()
  await alice.isConnected()
  await alice.reads('Hello Bob')
  assert.deepEqual([...alice.complaints(), ...bob.complaints()], [])
})
