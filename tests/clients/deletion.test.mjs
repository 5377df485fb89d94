// A document that was deleted comes back with a client that had it open, or its clients knock for ever and fast.

import assert from 'node:assert/strict'
import { describe } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { versions, YSweetClient } from './families.mjs'
import { eventually, story } from './harness.mjs'

/** How long clients are watched that go on editing what was deleted. */
const WATCHED = 3_000

/** How often one of them may come meanwhile. */
const KNOCKS = 60

describe('every client', { concurrency: 4 }, () => {
  for (const kind of [...versions, { family: 'y-sweet', version: '0.9', Kind: YSweetClient }]) {
    story(`${kind.family} ${kind.version}: whoever has it open does not bring it back`, async (scene) => {
      const server = await scene.serve({ flags: ['--max-new-connections-per-address', '0'] })
      const letter = `${server.url}/api/documents/letter`
      const alice = scene.accompany(new kind.Kind(server, 'letter', 'Alice', { version: kind.version }))
      await alice.isSynced()
      alice.types('old words')
      const read = async (words) => {
        const answer = await fetch(`${letter}?format=text`)
        assert.deepEqual([answer.status, await answer.text()], [200, words])
      }
      await eventually(() => read('old words'))
      let closed
      if (kind.family === 'y-websocket') alice.provider.on('closed', ({ code }) => (closed = code))

      assert.equal((await fetch(letter, { method: 'DELETE' })).status, 204)
      const before = server.log.length
      alice.types(', and more of them')
      await pause(WATCHED)
      assert.equal((await fetch(letter)).status, 404)
      const knocks = server.log.slice(before).split(' left ').length - 1
      assert.ok(knocks <= KNOCKS, `it came ${knocks} times`)
      // The newest ones say it, and stay away.
      if (kind.family === 'y-websocket' && kind.version === '3') assert.deepEqual([closed, knocks <= 1], [4404, true])
      if (kind.family === 'hocuspocus') assert.deepEqual(alice.denied, ['the document was deleted'])

      alice.disconnects()
      assert.equal((await fetch(letter, { method: 'PUT' })).status, 201)
      const bob = scene.accompany(new kind.Kind(server, 'letter', 'Bob', { version: kind.version }))
      await bob.isSynced()
      bob.types('new words')
      await eventually(() => read('new words'))
    })
  }
})
