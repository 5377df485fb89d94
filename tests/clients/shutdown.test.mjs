// A restart loses work, hangs, or leaves people outside.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { WebSocket } from 'ws'
import { eventually, freePort, story } from './harness.mjs'

/** Milliseconds in which the server must be gone: less than service managers wait before they kill. */
const DEADLINE = 10_000

/** Close code "service restart": come back soon. */
const RESTARTING = 1012

/** Documents that are busy when the server is told to stop. */
const BUSY = 30

story('a stop tells everybody to come back and loses nothing', async ({ serve, visit }) => {
  const server = await serve()
  const pairs = []
  for (let n = 0; n < BUSY; n += 1) {
    pairs.push([await visit(server, `document ${n}`), await visit(server, `document ${n}`)])
  }
  const codes = pairs.flat().map(closeCode)
  pairs.forEach(([author], n) => author.types(`the last words of document ${n}`))
  await Promise.all(pairs.map(([, reader], n) => reader.reads(`the last words of document ${n}`)))

  await stopsInTime(server)

  assert.deepEqual(new Set(await Promise.all(codes)), new Set([RESTARTING]))
  // Nobody may come back and bring what the server forgot.
  for (const person of pairs.flat()) person.leaves()
  await server.start()
  for (const n of pairs.keys()) assert.equal(await server.text(`document ${n}`), `the last words of document ${n}`)
})

story('people come back to a server that was started again', async ({ serve, visit }) => {
  const server = await serve({ port: await freePort() })
  const alice = await visit(server, 'notes', 'Alice')
  const bob = await visit(server, 'notes', 'Bob')
  alice.types('before. ')
  await bob.reads('before. ')

  await stopsInTime(server)
  await eventually(() => !alice.provider.wsconnected && !bob.provider.wsconnected)
  alice.types('meanwhile. ')
  await server.start()

  await bob.reads('before. meanwhile. ')
  bob.types('after.')
  await alice.reads('before. meanwhile. after.')
})

story('a client that never answers does not hold up a stop', async ({ serve, visit, afterwards }) => {
  const server = await serve()
  const alice = await visit(server, 'notes')
  const deaf = new WebSocket(`${server.url.replace('http', 'ws')}/ws/notes`)
  afterwards(() => deaf.terminate())
  await once(deaf, 'open')
  deaf._socket.pause()
  alice.types('hello')

  await stopsInTime(server)
})

async function stopsInTime(server) {
  const asked = Date.now()
  assert.deepEqual(await server.stop(), { code: 0, signal: null })
  const took = Date.now() - asked
  assert.ok(took < DEADLINE, `the stop took ${took} ms`)
}

function closeCode({ provider }) {
  return new Promise((resolve) => provider.once('connection-close', (event) => resolve(event?.code)))
}
