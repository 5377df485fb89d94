// Connects the document to the server, and says in one word at a time how that stands.
import type { Awareness } from 'y-protocols/awareness'
import { WebsocketProvider } from 'y-websocket'
import type * as Y from 'yjs'
import { pathSegment } from './document-name'
import type { Token } from './token'

export type ConnectionState =
  | { readonly kind: 'connecting' | 'connected' | 'offline' }
  | { readonly kind: 'closed'; readonly code: number; readonly reason: string }

/** Connects, and reports every change of state; the provider connects again by itself. */
export function connect(
  documentName: string,
  token: Token | null,
  ydoc: Y.Doc,
  awareness: Awareness,
  report: (state: ConnectionState) => void,
): WebsocketProvider {
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws'
  const provider = new WebsocketProvider(`${scheme}://${location.host}/ws`, pathSegment(documentName), ydoc, {
    awareness,
    connect: false,
    params: token === null ? {} : { token: token.text },
  })

  // "Connected" is said only when the document is here. An open socket alone shows nothing, and a
  // new attempt after a failed one is still "offline", or the words would flicker with every attempt.
  provider.on('sync', (synced) => {
    if (!synced) return
    report({ kind: 'connected' })
    // Others may have seen this visitor leave; only a newer announcement than that counts for them.
    awareness.setLocalState(awareness.getLocalState())
  })
  provider.on('connection-close', () => report({ kind: 'offline' }))
  provider.on('closed', ({ code, reason }) => report({ kind: 'closed', code, reason }))

  // Say goodbye, so that nobody stays in the list until the server misses them.
  addEventListener('pagehide', () => provider.disconnect())
  addEventListener('pageshow', (event) => {
    if (event.persisted) provider.connect()
  })

  provider.connect()
  return provider
}
