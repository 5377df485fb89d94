// A real history, typed again key by key, does not end in the text that it ended in.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate as breathe } from 'node:timers/promises'
import { gunzipSync } from 'node:zlib'
import * as Y from 'yjs'
import { assertSameText, eventually, repository, story } from './harness.mjs'

/** Keys that are typed before the sockets get their turn. */
const BURST = 500

/** Bytes that may wait in the typist's own socket: beyond it she would outrun her own line, not the server. */
const AHEAD = 1 << 20

/** She types for an hour in a few seconds, which nobody may. */
const UNLIMITED = ['--max-messages', '0', '--max-bytes', '0']

story('a paper of 259,778 edits arrives whole', async ({ serve, visit }) => {
  const { txns, endContent } = await trace('automerge-paper')
  const server = await serve({ flags: UNLIMITED })
  const author = await visit(server, 'paper')
  const reader = await visit(server, 'paper')

  for (const [n, { patches }] of txns.entries()) {
    for (const patch of patches) type(author.text, patch)
    if (n % BURST === 0) await lineIsFree(author)
  }

  assertSameText(author.text.toString(), endContent)
  await eventually(() => assertSameText(reader.text.toString(), endContent), { within: 60_000 })
  await exportsAre(server, 'paper', endContent)
}, { patience: 180_000 })

story('two friends who typed at the same time end in one text', async ({ serve, visit }) => {
  const { updates, ending } = separately(await trace('friendsforever'))
  const server = await serve({ flags: UNLIMITED })
  const friends = [await visit(server, 'friends'), await visit(server, 'friends')]

  await Promise.all(friends.map(async (friend, agent) => {
    for (const [n, { update, needs }] of updates[agent].entries()) {
      while (!has(friend.doc, needs)) await news(friend.doc)
      Y.applyUpdate(friend.doc, update, 'typed')
      if (n % BURST === 0) await lineIsFree(friend)
    }
  }))

  await friends[0].agreesWith(friends[1])
  assertSameText(friends[0].text.toString(), ending)
  await exportsAre(server, 'friends', ending)
}, { patience: 180_000 })

async function trace(name) {
  const packed = await readFile(join(repository, 'tests/data/traces', `${name}.json.gz`))
  const found = JSON.parse(gunzipSync(packed))
  // The positions count code points and Yjs counts UTF-16 units. In these texts they are the same.
  assert.doesNotMatch(JSON.stringify(found), /[\ud800-\udfff]/, `${name} needs its positions converted`)
  return found
}

/** One transaction for each edit, as a keyboard makes them. */
function type(text, [position, deleted, inserted]) {
  text.doc.transact(() => {
    if (deleted > 0) text.delete(position, deleted)
    if (inserted !== '') text.insert(position, inserted)
  })
}

async function lineIsFree({ provider }) {
  await breathe()
  if (provider.ws.bufferedAmount > AHEAD) await eventually(() => provider.ws.bufferedAmount <= AHEAD)
}

async function exportsAre(server, document, words) {
  assertSameText(await server.text(document), words)
  const copy = new Y.Doc()
  const response = await server.export(document, 'update')
  Y.applyUpdate(copy, new Uint8Array(await response.arrayBuffer()))
  assertSameText(copy.getText('text').toString(), words)
}

/**
 * Types a history of two agents with Yjs alone. Gives back, for each agent, the updates in the order of typing, each
 * with the state vector it `needs` from the other; and the text in which all of them together end.
 */
function separately({ txns }) {
  const docs = [new Y.Doc(), new Y.Doc()]
  const updates = [[], []]
  /** For each transaction, how many of either agent's transactions it has seen, its own included. */
  const seen = []
  /** How many of the other's updates each agent's document has. */
  const merged = [0, 0]
  docs.forEach((doc, agent) => doc.on('update', (update, origin) => {
    if (origin !== 'merge') updates[agent].push({ update })
  }))

  for (const { agent, parents, patches } of txns) {
    const other = 1 - agent
    const counts = [0, 1].map((one) => Math.max(0, ...parents.map((parent) => seen[parent][one])))
    assert.equal(counts[agent], updates[agent].length, 'each agent types on where it stopped')
    for (; merged[agent] < counts[other]; merged[agent] += 1) {
      Y.applyUpdate(docs[agent], updates[other][merged[agent]].update, 'merge')
    }
    const needs = Y.getState(docs[agent].store, docs[other].clientID)
    docs[agent].transact(() => patches.forEach((patch) => type(docs[agent].getText('text'), patch)))
    updates[agent].at(-1).needs = [docs[other].clientID, needs]
    counts[agent] += 1
    seen.push(counts)
  }

  const together = new Y.Doc()
  for (const doc of docs) Y.applyUpdate(together, Y.encodeStateAsUpdate(doc))
  return { updates, ending: together.getText('text').toString() }
}

function news(doc) {
  return new Promise((resolve) => doc.once('update', resolve))
}

function has(doc, [client, clock]) {
  return Y.getState(doc.store, client) >= clock
}
