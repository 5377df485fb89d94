// How long it takes until a client of each family says that an edit is saved: one person, one edit after the other.

import { setImmediate } from 'node:timers/promises'
import * as Y from 'yjs'
import { HocuspocusClient, YSweetClient, YWebsocketClient } from './families.mjs'
import { Scene } from './harness.mjs'

const EDITS = 300

const FAMILIES = {
  'y-websocket 3, echo=saved': (server) => new YWebsocketClient(server, 'y-websocket', null, { version: '3', echo: 'saved' }),
  'hocuspocus 4': (server) => new HocuspocusClient(server, 'hocuspocus', null, { version: '4' }),
  'y-sweet': (server) => new YSweetClient(server, 'y-sweet'),
}

const scene = new Scene()
const server = await scene.serve()
for (const [family, come] of Object.entries(FAMILIES)) {
  const alice = scene.accompany(come(server))
  await alice.isSynced()
  alice.types('.')
  await saved(alice)
  const took = []
  for (let edit = 0; edit < EDITS; edit += 1) {
    const start = performance.now()
    if (edit % 4 === 3) alice.text.delete(0, 2)
    else alice.types('word ')
    await saved(alice)
    took.push(performance.now() - start)
  }
  took.sort((one, other) => one - other)
  const at = (part) => took[Math.floor(part * (EDITS - 1))].toFixed(1)
  console.log(`${family}: "saved" after ${at(0.5)} ms at the median, ${at(0.99)} at the 99th percentile, ${at(1)} at most`)
}
await scene.clear()
process.exit()

/** Waits until everything in her text was told to be saved. */
async function saved(person) {
  const wanted = Y.encodeStateAsUpdate(person.doc)
  for (;;) {
    await setImmediate()
    const told = person.told()
    if (!told) continue
    const replica = new Y.Doc()
    Y.applyUpdate(replica, told)
    if (Y.snapshotContainsUpdate(Y.snapshot(replica), wanted)) return
  }
}
