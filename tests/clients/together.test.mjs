// Clients of all families write one document at once, and do not end with the same.

import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import * as Y from 'yjs'
import { startNodes } from './cluster.mjs'
import { HocuspocusClient, YSweetClient, YWebsocketClient } from './families.mjs'
import { assertSameText, eventually, random, sortedStateVector, story } from './harness.mjs'

const CLIENTS = 20
const EDITS = 200
const first = Number(process.env.SEED ?? 1)
const SEEDS = Array.from({ length: Number(process.env.SEEDS ?? 10) }, (_, number) => first + number)

const KINDS = [
  (server, document) => new YWebsocketClient(server, document, null, { version: '1' }),
  (server, document) => new HocuspocusClient(server, document, null, { version: '4' }),
  (server, document) => new YSweetClient(server, document),
  (server, document) => new YWebsocketClient(server, document, null, { version: '3' }),
  (server, document) => new HocuspocusClient(server, document, null, { version: '2' }),
  (server, document) => new HocuspocusClient(server, document, null, { version: '3' }),
]

story(`${CLIENTS} clients of three families on two nodes end with the same (SEED=${SEEDS[0]}, SEEDS=${SEEDS.length})`, async (scene) => {
  const nodes = await startNodes(scene, 2)
  for (const seed of SEEDS) {
    const chance = random(seed)
    const document = `seed-${seed}`
    const clients = Array.from({ length: CLIENTS }, (_, number) =>
      scene.accompany(KINDS[number % KINDS.length](nodes[number % 2], document)))
    for (const client of clients) await client.isSynced()

    await Promise.all(clients.map(async (client, number) => {
      for (let edit = 0; edit < EDITS; edit += 1) {
        change(client.doc, chance, `${number}.${edit} `)
        if (chance() < 0.01) client.losesTheLine()
        if (chance() < 0.3) await pause(chance() * 4)
      }
    }))

    const [one, ...others] = clients
    await eventually(() => {
      for (const other of others) assert.deepEqual(sortedStateVector(other.doc), sortedStateVector(one.doc))
      for (const other of others) assert.deepEqual(contents(other.doc), contents(one.doc))
    })
    for (const client of clients) if ('saved' in client) await eventually(() => client.saved)
    for (const node of nodes) {
      const exported = new Y.Doc()
      Y.applyUpdate(exported, new Uint8Array(await (await node.export(document, 'update')).arrayBuffer()))
      assert.deepEqual(contents(exported), contents(one.doc))
      assertSameText(JSON.parse(await (await node.export(document, 'json')).text()).text, one.text.toString())
    }
    for (const client of clients) client.leaves()
  }
}, { patience: 30_000 + SEEDS.length * 30_000 })

function change(doc, chance, word) {
  const [text, map, array] = [doc.getText('text'), doc.getMap('map'), doc.getArray('array')]
  const at = (length) => Math.floor(chance() * (length + 1))
  switch (Math.floor(chance() * 8)) {
    case 0: return text.length > 3 ? text.delete(at(text.length - 4), 3) : undefined
    case 1: return map.set(`key ${at(9)}`, word)
    case 2: return map.delete(`key ${at(9)}`)
    case 3: return array.insert(at(array.length), [word, { nested: [word] }])
    case 4: return array.length > 2 ? array.delete(at(array.length - 3), 2) : array.push([word])
    default: return text.insert(at(text.length), word)
  }
}

function contents(doc) {
  return { text: doc.getText('text').toString(), map: doc.getMap('map').toJSON(), array: doc.getArray('array').toJSON() }
}
