// A client of another family, or of another version, does not get what the others have, or is told that something is
// saved that is not.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { startNodes } from './cluster.mjs'
import { HocuspocusClient, openSocket, versions } from './families.mjs'
import { eventually, freePort, sortedStateVector, story, token } from './harness.mjs'

const SECRET = randomBytes(48).toString('base64')

/** All clients give a line up that was silent for 30 seconds; some look only every few seconds. */
const IDLE = Number(process.env.IDLE_SECONDS ?? 70) * 1_000

/** Somebody comes with the client of this version, and leaves with the story. */
function come(scene, { version, Kind }, server, document, who, options = {}) {
  return scene.accompany(new Kind(server, document, who, { version, ...options }))
}

function agree(...clients) {
  return eventually(() => {
    const [first, ...others] = clients.map(({ doc, text }) => [sortedStateVector(doc), text.toString()])
    for (const other of others) assert.deepEqual(other, first)
  })
}

describe('every client', { concurrency: 3 }, () => {
  story(`stays connected for ${IDLE / 1_000} seconds in which nobody says anything`, async (scene) => {
    const server = await scene.serve()
    const lines = []
    for (const kind of versions) {
      const client = come(scene, kind, server, `${kind.family} ${kind.version}`)
      // Its own heartbeat would keep the line alive.
      client.awareness.setLocalState(null)
      await client.isSynced()
      const line = (client.socket ?? client.provider)
      line.on('status', ({ status }) => lines.push(`${kind.family} ${kind.version}: ${status}`))
    }
    await pause(IDLE)
    assert.deepEqual(lines, [], 'a line was given up')
  }, { patience: IDLE + 40_000 })

  for (const kind of versions) {
    story(`${kind.family} ${kind.version}: two people, offline edits of both, and a server that starts again`, async (scene) => {
      const server = await scene.serve({ port: await freePort() })
      const alice = come(scene, kind, server, 'team/notes', 'Alice')
      const bob = come(scene, kind, server, 'team/notes', 'Bob')
      await alice.isSynced()
      await bob.isSynced()
      alice.types('hello')
      await bob.reads('hello')
      await eventually(() => assert.deepEqual([alice.sees(), bob.sees()], [['Alice', 'Bob'], ['Alice', 'Bob']]))

      alice.disconnects()
      alice.types(' from a train')
      bob.text.delete(0, 1)
      bob.text.insert(0, 'H')
      // Where the client says what is saved, it says so now, and of what was written meanwhile later.
      if ('saved' in bob) await eventually(() => bob.saved)
      alice.connects()
      await agree(alice, bob)
      assert.equal(bob.text.toString(), 'Hello from a train')
      if ('saved' in alice) await eventually(() => alice.saved)

      assert.equal((await server.stop()).code, 0)
      alice.types('!')
      await server.start()
      await agree(alice, bob)
      assert.equal(await server.text('team/notes'), 'Hello from a train!')
      if ('saved' in alice) await eventually(() => alice.saved && bob.saved)
    })

    story(`${kind.family} ${kind.version}: a reader's edits are not taken`, async (scene) => {
      const server = await scene.serve({ variables: { QUIRE_SECRET: SECRET } })
      const alice = come(scene, kind, server, 'notes', 'Alice', { token: token(SECRET, 'alice', 'notes', 'write') })
      const reader = come(scene, kind, server, 'notes', 'Rita', { token: token(SECRET, 'rita', 'notes', 'read') })
      await alice.isSynced()
      await reader.isSynced()
      if ('saved' in reader) await eventually(() => reader.saved)
      reader.types('scribble')
      alice.types('hello')
      await eventually(() => assert.match(reader.text.toString(), /hello/))
      await eventually(() => assert.deepEqual(alice.sees(), ['Alice', 'Rita']))
      assert.equal(alice.text.toString(), 'hello')
      assert.equal(reader.saved ?? false, false, 'she was told that her edit is saved')
    })
  }

  for (const kind of versions.filter(({ family }) => family === 'hocuspocus')) {
    story(`hocuspocus ${kind.version}: who has no good token is told so, and nobody else is disturbed`, async (scene) => {
      const server = await scene.serve({ variables: { QUIRE_SECRET: SECRET } })
      const good = token(SECRET, 'alice', 'plan*', 'write')
      const alice = come(scene, kind, server, 'plan', 'Alice', { token: good })
      await alice.isSynced()
      // On her socket, where the version can have several.
      const bad = [
        ['plan', token(SECRET, 'mallory', 'plan', 'write', { ttl: 0 }), /expired/],
        ['plan', token(randomBytes(48).toString('base64'), 'mallory', '*', 'admin'), /signature/],
        ['secret', good, /nothing on "secret"/],
      ]
      for (const [document, token, reason] of bad) {
        const mallory = come(scene, kind, server, document, null, { token })
        await eventually(() => assert.equal(mallory.denied.length, 1))
        assert.match(mallory.denied[0], reason)
        assert.equal(mallory.synced, false)
      }
      alice.types('hello')
      await eventually(() => alice.saved)
    })

    story(`hocuspocus ${kind.version}: many documents share one socket`, async (scene) => {
      const server = await scene.serve()
      const socket = openSocket(server, kind.version)
      scene.afterwards(() => socket.destroy())
      const names = Array.from({ length: 20 }, (_, number) => `pages/${number}`)
      const clients = names.map((name) => come(scene, kind, server, name, name, { socket }))
      for (const client of clients) await client.isSynced()
      for (const [number, client] of clients.entries()) client.types(`this is ${names[number]}`)
      for (const client of clients) await eventually(() => client.saved)
      for (const name of names) assert.equal(await server.text(name), `this is ${name}`)
      assert.deepEqual(clients.map((client) => client.sees()), names.map((name) => [name]))
      // One leaves; the others stay.
      clients[0].leaves()
      clients[1].types('!')
      await eventually(() => clients[1].saved)
      assert.equal(await server.text(names[1]), `this is ${names[1]}!`)
    })

    story(`hocuspocus ${kind.version}: stateless messages reach the others on every node`, async (scene) => {
      const [one, other] = await startNodes(scene, 2)
      const alice = come(scene, kind, one, 'notes', 'Alice')
      const bob = come(scene, kind, one, 'notes', 'Bob')
      const carol = come(scene, kind, other, 'notes', 'Carol')
      for (const client of [alice, bob, carol]) await client.isSynced()
      alice.provider.sendStateless('{"lunch":"now"}')
      await eventually(() => assert.deepEqual([bob.stateless, carol.stateless], [['{"lunch":"now"}'], ['{"lunch":"now"}']]))
      assert.deepEqual(alice.stateless, [])
    })
  }

  story('hocuspocus 4: a token is asked for again before it ends, and the session goes on', async (scene) => {
    const server = await scene.serve({ variables: { QUIRE_SECRET: SECRET } })
    const [kind] = versions.filter(({ family, version }) => family === 'hocuspocus' && version === '4')
    let asked = 0
    const fresh = () => {
      asked += 1
      return token(SECRET, 'alice', 'plan', asked === 1 ? 'read' : 'write', { ttl: 4 })
    }
    const alice = come(scene, kind, server, 'plan', 'Alice', { token: fresh })
    const lines = []
    await alice.isSynced()
    alice.socket.on('status', ({ status }) => lines.push(status))
    await eventually(() => assert.equal(alice.provider.authorizedScope, 'readonly'))
    await eventually(() => assert.equal(alice.provider.authorizedScope, 'read-write'))
    alice.types('hello')
    await eventually(() => alice.saved)
    await eventually(() => assert.ok(asked >= 4, `asked ${asked} times`))
    assert.deepEqual([lines, alice.denied], [[], []])
    assert.equal(alice.provider.isAuthenticated, true)
  })

  story('hocuspocus 4: sessions of one document on one socket are told apart', async (scene) => {
    const server = await scene.serve()
    const socket = openSocket(server, 4)
    scene.afterwards(() => socket.destroy())
    const session = { version: 4, socket, sessionAwareness: true }
    const open = (who) => scene.accompany(new HocuspocusClient(server, 'notes', who, session))
    const [alice, again] = [open('Alice'), open('Alice again')]
    await alice.isSynced()
    await again.isSynced()
    alice.types('hello')
    await again.reads('hello')
    await eventually(() => assert.deepEqual(alice.sees(), ['Alice', 'Alice again']))
    again.leaves()
    await eventually(() => assert.deepEqual(alice.sees(), ['Alice']))
    assert.equal(await server.text('notes'), 'hello')
  })
})
