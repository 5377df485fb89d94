// Something was shown as saved, and a crash took it away.

import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import * as decoding from 'lib0/decoding'
import { WebSocket } from 'ws'
import * as Y from 'yjs'
import { eventually, freePort, random, story } from './harness.mjs'

const ROUNDS = 20

/** Milliseconds that the server lives in one round, at most. */
const LIFETIME = 400

/** Frames of y-websocket that carry an update begin with these: a sync message, and its kind. */
const SYNC = 0
const UPDATE = 2

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31))

story(`what was reported saved survives ${ROUNDS} crashes (SEED=${seed})`, async ({ serve, visit }) => {
  const chance = random(seed)
  const server = await serve({ port: await freePort() })
  const saved = new Saved()
  const alice = await visit(server, 'notes', 'Alice', { params: { echo: 'saved' }, socket: saved.socket() })
  let roundsWithNews = 0

  for (let round = 1; round <= ROUNDS; round += 1) {
    const stopTyping = keepsTyping(alice, chance)
    await pause(chance() * LIFETIME)
    await server.kill()
    // She types on while the server is away, but her line is down: she must not bring back what the server lost.
    alice.vanishes()
    await server.start()
    await stopTyping()

    const stranger = await visit(server, 'notes')
    if (saved.digest()) roundsWithNews += 1
    assert.ok(saved.isIn(stranger.doc), `round ${round}: something reported saved is gone`)
    alice.connects()
    await alice.agreesWith(stranger)
    stranger.leaves()
  }

  assert.ok(roundsWithNews >= ROUNDS / 4, `only in ${roundsWithNews} rounds something was reported saved at all`)
  alice.types('the end')
  await eventually(() => {
    saved.digest()
    assert.ok(saved.reaches(alice), 'her last words were never reported saved')
  })
})

/** Types and deletes at a good pace until told to stop. */
function keepsTyping(person, chance) {
  let stopped = false
  const typing = (async () => {
    for (let word = 0; !stopped; word += 1) {
      const { length } = person.text
      if (length > 20 && chance() < 0.2) person.deletes(Math.floor(chance() * (length - 10)), 5)
      else if (chance() < 0.3) person.text.insert(Math.floor(chance() * length), `<${word}>`)
      else person.types(`${word} `)
      await pause(chance() * 8)
    }
  })()
  return () => {
    stopped = true
    return typing
  }
}

/** What a client was told is saved: with `echo=saved`, her own updates that come back. */
class Saved {
  #heard = []
  #all = Y.encodeStateAsUpdate(new Y.Doc())

  /** A socket that listens as well. The client is alone when it is connected, so every update is one of her own. */
  socket() {
    const heard = this.#heard
    return class extends WebSocket {
      constructor(...args) {
        super(...args)
        this.on('message', (data) => {
          const frame = decoding.createDecoder(new Uint8Array(data))
          if (decoding.readVarUint(frame) !== SYNC || decoding.readVarUint(frame) !== UPDATE) return
          heard.push(decoding.readVarUint8Array(frame).slice())
        })
      }
    }
  }

  /** Takes in what was heard; says whether there was anything. */
  digest() {
    const news = this.#heard.splice(0)
    if (news.length > 0) this.#all = Y.mergeUpdates([this.#all, ...news])
    return news.length > 0
  }

  /** Whether a document has every insertion and every deletion that was reported. */
  isIn(doc) {
    return Y.snapshotContainsUpdate(Y.snapshot(doc), this.#all)
  }

  /** Whether her latest insertion was reported. Earlier ones may not be, where a crash came before the report. */
  reaches({ id, doc }) {
    const latest = Y.getState(doc.store, id) - 1
    const { structs } = Y.decodeUpdate(this.#all)
    return structs.some(({ id: { client, clock }, length }) => client === id && clock + length > latest)
  }
}
