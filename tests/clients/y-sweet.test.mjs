// Y-Sweet's SDK or client, unchanged, does not get along with this server.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { DocumentManager } from '@y-sweet/sdk'
import * as Y from 'yjs'
import { YSweetClient } from './families.mjs'
import { eventually, freePort, story, token } from './harness.mjs'

const SECRET = randomBytes(48).toString('base64')

/** The client gives a line up on which it heard nothing for three seconds after it has asked. */
const IDLE = Number(process.env.IDLE_SECONDS ?? 70) * 1_000

/** What an application has: the SDK with its connection string. */
function manager(server, token) {
  const { host } = new URL(server.url)
  return new DocumentManager(`ys://${token ? `${encodeURIComponent(token)}@` : ''}${host}/`)
}

function strict(scene) {
  return scene.serve({ variables: { QUIRE_SECRET: SECRET } })
}

function admin() {
  return token(SECRET, 'app', '*', 'admin')
}

function updateOf(words) {
  const doc = new Y.Doc()
  doc.getText('text').insert(0, words)
  return Y.encodeStateAsUpdate(doc)
}

function textOf(update) {
  const doc = new Y.Doc()
  Y.applyUpdate(doc, update)
  return doc.getText('text').toString()
}

describe('y-sweet', { concurrency: 3 }, () => {
  story(`a client stays connected for ${IDLE / 1_000} seconds in which nobody says anything`, async (scene) => {
    const server = await scene.serve()
    const alice = scene.accompany(new YSweetClient(server, 'notes'))
    alice.awareness.setLocalState(null)
    await alice.isSynced()
    const lines = []
    alice.provider.on('connection-status', (status) => lines.push(status))
    await pause(IDLE)
    assert.deepEqual(lines, [])
  }, { patience: IDLE + 30_000 })

  for (const auth of [false, true]) {
    story(`an application makes, reads and writes documents, ${auth ? 'with' : 'without'} tokens`, async (scene) => {
      const server = auth ? await strict(scene) : await scene.serve()
      const app = manager(server, auth ? admin() : 'undefined')
      assert.deepEqual(await app.checkStore(), { ok: true })
      const { docId } = await app.createDoc()
      assert.match(docId, /^[\w-]{21}$/)
      assert.deepEqual(await app.createDoc('notes'), { docId: 'notes' })
      assert.deepEqual(await app.createDoc('notes'), { docId: 'notes' })
      assert.equal(textOf(await app.getDocAsUpdate('notes')), '')
      await app.updateDoc('notes', updateOf('from the application. '))
      const client = await app.getClientToken('notes')
      assert.equal(client.url, `${server.url.replace('http', 'ws')}/d/notes/ws`)
      assert.equal('token' in client, auth)
      const alice = scene.accompany(new YSweetClient(server, 'notes', 'Alice', { clientToken: () => app.getClientToken('notes') }))
      await alice.reads('from the application. ')
      alice.types('from Alice')
      await eventually(() => alice.saved)
      assert.equal(textOf(await app.getDocAsUpdate('notes')), 'from the application. from Alice')
      await app.updateDoc('notes', updateOf('and again. '))
      await eventually(() => assert.match(alice.text.toString(), /and again/))
      await assert.rejects(app.getClientToken('nowhere'), /404/)
      await assert.rejects(app.createDoc('../etc'), /400/)
      await assert.rejects(app.updateDoc('notes', new Uint8Array([1, 2, 3])), /400/)
      if (auth) await assert.rejects(manager(server).createDoc('x'), /NoAuthProvided/)
      if (auth) await assert.rejects(manager(server, token(SECRET, 'eve', '*', 'write')).createDoc('x'), /403/)
      if (auth) await assert.rejects(manager(server, 'AAAgwrong').createDoc('x'), /InvalidAuthProvided/)
    })
  }

  story('people whom the application does not name are not counted as one', async (scene) => {
    const server = await strict(scene)
    const app = manager(server, admin())
    await app.createDoc('notes')
    const people = Array.from({ length: 7 }, (_, n) =>
      scene.accompany(new YSweetClient(server, 'notes', `Guest ${n}`, { clientToken: () => app.getClientToken('notes') })))
    await Promise.all(people.map((person) => person.isSynced()))
  })

  story('a reader sees everything, and her edits are not taken', async (scene) => {
    const server = await strict(scene)
    const app = manager(server, admin())
    await app.createDoc('notes')
    await app.updateDoc('notes', updateOf('hello'))
    const clientToken = await app.getClientToken('notes', { authorization: 'read-only', userId: 'rita' })
    assert.equal(clientToken.authorization, 'read-only')
    const rita = scene.accompany(new YSweetClient(server, 'notes', 'Rita', { clientToken: async () => clientToken }))
    await rita.reads('hello')
    await eventually(() => rita.saved)
    rita.types('scribble')
    await pause(300)
    assert.equal(rita.saved, false, 'she was told that it is saved')
    assert.equal(textOf(await app.getDocAsUpdate('notes')), 'hello')
    const post = await fetch(`${clientToken.baseUrl}/update`, {
      method: 'POST',
      body: updateOf('scribble'),
      headers: { authorization: `Bearer ${clientToken.token}`, connection: 'close' },
    })
    assert.equal(post.status, 403)
  })

  story('a token that ends is asked for again, and a bad one is refused at the door', async (scene) => {
    const server = await strict(scene)
    const app = manager(server, admin())
    await app.createDoc('notes')
    const asked = []
    const clientToken = async () => {
      const token = await app.getClientToken('notes', { validForSeconds: asked.length === 0 ? 2 : 60 })
      asked.push(Date.now())
      return token
    }
    const alice = scene.accompany(new YSweetClient(server, 'notes', 'Alice', { clientToken }))
    await alice.isSynced()
    await eventually(() => assert.equal(asked.length, 2), { within: 15_000 })
    await alice.isSynced()
    alice.types('hello')
    await eventually(() => alice.saved)

    const { url, token: spent } = await app.getClientToken('notes', { validForSeconds: 0 })
    const client = new alice.provider.WebSocketPolyfill(`${url}/notes?token=${spent}`)
    const refused = await new Promise((resolve) => client.on('error', resolve).on('open', () => resolve('it was let in')))
    assert.match(String(refused), /401/)
  })

  story('what was written offline arrives, and a server that starts again is found', async (scene) => {
    const server = await scene.serve({ port: await freePort() })
    const alice = scene.accompany(new YSweetClient(server, 'notes', 'Alice'))
    const bob = scene.accompany(new YSweetClient(server, 'notes', 'Bob'))
    await alice.isSynced()
    await bob.isSynced()
    alice.types('hello')
    await bob.reads('hello')
    await eventually(() => assert.deepEqual([alice.sees(), bob.sees()], [['Alice', 'Bob'], ['Alice', 'Bob']]))
    assert.equal((await server.stop()).code, 0)
    alice.types(' from a train')
    bob.text.insert(0, 'Oh, ')
    await server.start()
    await eventually(() => assert.equal(alice.text.toString(), 'Oh, hello from a train'))
    await bob.reads('Oh, hello from a train')
    await eventually(() => alice.saved && bob.saved)
    assert.equal(await server.text('notes'), 'Oh, hello from a train')
  })
})
