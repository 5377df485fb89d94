// Y-Sweet's React hooks, unchanged, do not get along with this server.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { DocumentManager } from '@y-sweet/sdk'
import { useConnectionStatus, useHasLocalChanges, usePresence, usePresenceSetter, useText, YDocProvider } from '@y-sweet/react'
import { createElement, useEffect } from 'react'
import { create } from 'react-test-renderer'
import { WebSocket } from 'ws'
import { eventually, story, token } from './harness.mjs'

const SECRET = randomBytes(48).toString('base64')

// What a page has, and this process has not.
globalThis.WebSocket = WebSocket

/** A page with an editor: what it renders is what a person would see there. */
class Page {
  shown = null

  constructor(document, name, authEndpoint) {
    const Editor = () => {
      const text = useText('text')
      const setPresence = usePresenceSetter()
      this.shown = {
        text: text.toString(),
        saving: useHasLocalChanges(),
        status: useConnectionStatus(),
        others: [...usePresence().values()].map((presence) => presence.name),
      }
      this.types = (words) => text.insert(text.length, words)
      useEffect(() => setPresence({ name }), [setPresence])
      return null
    }
    const props = { docId: document, authEndpoint, showDebuggerLink: false, offlineSupport: false }
    this.tree = create(createElement(YDocProvider, props, createElement(Editor)))
  }

  shows = (expected) => eventually(() => assert.deepEqual(this.shown, expected))

  leaves() {
    this.tree.unmount()
  }
}

story('two pages edit with hooks, see each other, and show when everything is saved', async (scene) => {
  const server = await scene.serve({ variables: { QUIRE_SECRET: SECRET } })
  const { host } = new URL(server.url)
  const app = new DocumentManager(`ys://${encodeURIComponent(token(SECRET, 'app', '*', 'admin'))}@${host}/`)
  const open = (name) => scene.accompany(new Page('notes', name, () => app.getOrCreateDocAndToken('notes')))
  const alice = open('Alice')
  await alice.shows({ text: '', saving: false, status: 'connected', others: [] })
  const bob = open('Bob')
  await bob.shows({ text: '', saving: false, status: 'connected', others: ['Alice'] })
  alice.types('from Alice')
  await bob.shows({ text: 'from Alice', saving: false, status: 'connected', others: ['Alice'] })
  await alice.shows({ text: 'from Alice', saving: false, status: 'connected', others: ['Bob'] })
  await server.kill()
  await eventually(() => assert.notEqual(alice.shown.status, 'connected'))
  alice.types(', offline')
  await eventually(() => assert.equal(alice.shown.saving, true, 'an edit that nobody has is shown as saved'))
  await server.start()
  await alice.shows({ text: 'from Alice, offline', saving: false, status: 'connected', others: ['Bob'] })
  await bob.shows({ text: 'from Alice, offline', saving: false, status: 'connected', others: ['Alice'] })
})
