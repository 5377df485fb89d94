// Something was shown as saved, and a crash took it away; or what is saved is never shown so.

import assert from 'node:assert/strict'
import { describe } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import * as Y from 'yjs'
import { startRedis } from './cluster.mjs'
import { HocuspocusClient, YSweetClient, YWebsocketClient } from './families.mjs'
import { eventually, freePort, random, story } from './harness.mjs'

const ROUNDS = Number(process.env.ROUNDS ?? 10)
/** Milliseconds that a server lives in one round, at most. */
const LIFETIME = 400
const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31))

const FAMILIES = {
  'y-websocket': (server) => new YWebsocketClient(server, 'notes', null, { version: '3', echo: 'saved' }),
  'hocuspocus 2': (server) => new HocuspocusClient(server, 'notes', null, { version: '2' }),
  'hocuspocus 3': (server) => new HocuspocusClient(server, 'notes', null, { version: '3' }),
  'hocuspocus 4': (server) => new HocuspocusClient(server, 'notes', null, { version: '4' }),
  'y-sweet': (server) => new YSweetClient(server, 'notes'),
}

/** What crashes, and how all of it comes back. */
const STORES = {
  'a folder': async (scene) => {
    const server = await scene.serve({ port: await freePort() })
    return { server, crash: () => server.kill(), comeBack: () => server.start() }
  },
  Redis: async (scene) => {
    const redis = await startRedis(scene)
    const server = await scene.serve({ port: await freePort(), flags: ['--redis', redis.url] })
    return {
      server,
      crash: () => Promise.all([server.kill(), redis.kill()]),
      async comeBack() {
        await redis.start()
        await server.start()
      },
    }
  },
}

describe('saved', { concurrency: 2 }, () => {
  for (const [store, start] of Object.entries(STORES)) {
    for (const [family, come] of Object.entries(FAMILIES)) {
      story(`${family}: what was reported saved in ${store} survives ${ROUNDS} crashes (SEED=${seed})`, async (scene) => {
        const chance = random(seed)
        const { server, crash, comeBack } = await start(scene)
        let roundsWithNews = 0
        for (let round = 1; round <= ROUNDS; round += 1) {
          const alice = scene.accompany(come(server))
          await alice.isSynced()
          const stopTyping = keepsTyping(alice, chance)
          await pause(100 + chance() * LIFETIME)
          await crash()
          const told = alice.told()
          // She must not bring back what the server lost.
          alice.disconnects()
          await stopTyping()
          await comeBack()
          if (told) {
            roundsWithNews += 1
            const stranger = scene.accompany(new YWebsocketClient(server, 'notes', null, { version: '3' }))
            await stranger.isSynced()
            assert.ok(Y.snapshotContainsUpdate(Y.snapshot(stranger.doc), told), `round ${round}: something is gone`)
            stranger.leaves()
          }
          alice.leaves()
        }
        assert.ok(roundsWithNews >= ROUNDS / 4, `only in ${roundsWithNews} rounds something was reported saved at all`)
      }, { patience: 60_000 + ROUNDS * 5_000 })
    }
  }

  for (const [family, come] of Object.entries(FAMILIES)) {
    story(`${family}: "saved" comes for insertions, for deletions, and for who has changed nothing`, async (scene) => {
      const server = await scene.serve()
      const alice = scene.accompany(come(server))
      await alice.isSynced()
      const isSaved = () => eventually(() => Y.snapshotContainsUpdate(Y.snapshot(replica(alice.told())), Y.encodeStateAsUpdate(alice.doc)))
      if ('saved' in alice) await eventually(() => alice.saved)
      alice.types('hello')
      await isSaved()
      alice.text.delete(1, 3)
      await isSaved()
      const reader = scene.accompany(come(server))
      await reader.reads('ho')
      if ('saved' in reader) await eventually(() => reader.saved)
    })
  }
})

function replica(update) {
  const doc = new Y.Doc()
  if (update) Y.applyUpdate(doc, update)
  return doc
}

/** Types and deletes at a good pace until told to stop. */
function keepsTyping(person, chance) {
  let stopped = false
  const typing = (async () => {
    for (let word = 0; !stopped; word += 1) {
      const { length } = person.text
      if (length > 20 && chance() < 0.2) person.text.delete(Math.floor(chance() * (length - 10)), 5)
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
