// Connects the document to the server, and says how that stands and whether everything is saved.
import { HocuspocusProvider, HocuspocusProviderWebsocket } from '@hocuspocus/provider'
import type { Awareness } from 'y-protocols/awareness'
import type * as Y from 'yjs'
import { pathSegment } from './document-name'
import type { Token } from './token'

export type ConnectionState =
  | { readonly kind: 'connecting' | 'saving' | 'saved' | 'offline' }
  | { readonly kind: 'closed'; readonly reason: string }

export interface Connection {
  /** Tries again after the server has closed the document. */
  connect(): void
}

/** Connects, and reports every change of state; the provider connects again by itself. */
export function connect(
  documentName: string,
  token: Token | null,
  ydoc: Y.Doc,
  awareness: Awareness,
  report: (state: ConnectionState) => void,
): Connection {
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws'
  const socket = new HocuspocusProviderWebsocket({
    // The name is there for balancers; the provider says it again in each message.
    url: `${scheme}://${location.host}/hocuspocus/${pathSegment(documentName)}`,
  })
  const provider = new HocuspocusProvider({
    websocketProvider: socket,
    name: documentName,
    document: ydoc,
    awareness,
    token: token?.text ?? '',
  })
  // An open socket alone shows nothing, and a new attempt after a failed one is still "offline", or the words would
  // flicker with every attempt: what counts is whether the document is here.
  provider.on('synced', () => {
    reportSaved()
    // Others may have seen this visitor leave; only a newer announcement than that counts for them.
    awareness.setLocalState(awareness.getLocalState())
  })
  provider.on('unsyncedChanges', () => provider.synced && reportSaved())
  provider.on('disconnect', () => report({ kind: 'offline' }))
  provider.on('authenticationFailed', ({ reason }: { reason: string }) => report({ kind: 'closed', reason }))
  provider.attach()

  function reportSaved(): void {
    report({ kind: provider.hasUnsyncedChanges ? 'saving' : 'saved' })
  }

  // Say goodbye, so that nobody stays in the list until the server misses them.
  addEventListener('pagehide', () => socket.disconnect())
  addEventListener('pageshow', (event) => {
    if (event.persisted) location.reload()
  })

  return {
    connect() {
      void provider.sendToken()
      provider.startSync()
    },
  }
}
