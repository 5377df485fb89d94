// Writes ../y-leveldb with the newest y-leveldb (0.2.0, with level 8 and classic-level 1), in the way in which
// y-websocket's server uses it. What was written is compacted twice, so that there are tables on several levels, and
// entries in them that were deleted or overwritten later.

import { mkdir, rm } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { LeveldbPersistence } from 'y-leveldb'
import * as Y from 'yjs'
import { documents, expect, write } from './documents.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const folder = resolve(here, '../y-leveldb')

await rm(folder, { recursive: true, force: true })
await mkdir(folder)
const open = () => new LeveldbPersistence(resolve(folder, 'store'))
let persistence = open()
const servers = {}

/** What the server does with a document and its clients. */
async function connect(name, doc) {
  servers[name] ??= bind(name)
  const { server, clients } = await servers[name]
  clients.push(doc)
  Y.applyUpdate(doc, Y.encodeStateAsUpdate(server))
  // In its own time, as over a network: both have written before either hears of the other.
  doc.on('update', (update, origin) => origin === 'server' || setImmediate(() => Y.applyUpdate(server, update)))
  return () => {}
}

async function bind(name) {
  const persisted = await persistence.getYDoc(name)
  const server = new Y.Doc()
  const clients = []
  persistence.storeUpdate(name, Y.encodeStateAsUpdate(server))
  Y.applyUpdate(server, Y.encodeStateAsUpdate(persisted))
  server.on('update', (update) => {
    persistence.storeUpdate(name, update)
    clients.forEach((client) => Y.applyUpdate(client, update, 'server'))
  })
  return { server, clients }
}

const compact = () => persistence._transact((db) => db.compactRange([''], ['v2']))
const docs = {}
const quarter = documents.length / 4
for (let from = 0; from < documents.length; from += quarter) {
  const some = documents.slice(from, from + quarter)
  await Promise.all(some.map(async (document) => (docs[document.name] = await write(document, connect))))
  // Now all its updates are one, and the others are deleted.
  if (some.some(({ name }) => name === 'typed')) await persistence.flushDocument('typed')
  if (from === 0) {
    await persistence.setMeta('text', 'title', 'A text')
    // Another one, whose name is "text" too when it is decoded.
    await persistence.storeUpdate('te%78t', Y.encodeStateAsUpdate(docs.nested))
    // This one is gone.
    await persistence.storeUpdate('cleared', Y.encodeStateAsUpdate(docs.text))
    await compact()
    await persistence.clearDocument('cleared')
  }
  if (from === quarter) await compact()
  if (from === 2 * quarter) {
    await persistence.destroy()
    persistence = open()
  }
}
await persistence.destroy()
// LevelDB's notes for people.
await Promise.all(['LOG', 'LOG.old'].map((file) => rm(resolve(folder, 'store', file))))
await expect(resolve(folder, 'expected.json'), docs)
