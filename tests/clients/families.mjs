// People with the published clients of all families in their hands, in the versions that are promised to work. Each
// speaks to her own client; what she can do is the same.

import { YSweetProvider } from '@y-sweet/client'
import * as decoding from 'lib0/decoding'
import { Awareness } from 'y-protocols/awareness'
import { WebSocket } from 'ws'
import * as Y from 'yjs'
import * as hocuspocus2 from 'hocuspocus-2'
import * as hocuspocus3 from 'hocuspocus-3'
import * as hocuspocus4 from 'hocuspocus-4'
import { WebsocketProvider as YWebsocket3 } from 'y-websocket'
import { WebsocketProvider as YWebsocket1 } from 'y-websocket-1'
import { WebsocketProvider as YWebsocket2 } from 'y-websocket-2'
import { eventually } from './harness.mjs'

/** Frames of y-websocket that carry an update begin with these: a sync message, and its kind. */
const SYNC = 0
const UPDATE = 2

const HOCUSPOCUS = { 2: hocuspocus2, 3: hocuspocus3, 4: hocuspocus4 }
const Y_WEBSOCKET = { 1: YWebsocket1, 2: YWebsocket2, 3: YWebsocket3 }

/** What every one of them has: a document with a text, and others in it. */
class Client {
  constructor(who) {
    this.doc = new Y.Doc()
    this.text = this.doc.getText('text')
    this.awareness = new Awareness(this.doc)
    if (who) this.awareness.setLocalStateField('user', { name: who })
  }

  types(words) {
    this.text.insert(this.text.length, words)
  }

  /** Her client says that everything is saved. */
  hearsSaved() {
    this.savedUpdate = Y.encodeStateAsUpdate(this.doc)
  }

  /** What she was told is saved, as an update. */
  told() {
    return this.savedUpdate
  }

  /** Waits until the whole text is this. */
  reads(words) {
    return eventually(() => this.text.toString() === words)
  }

  isSynced() {
    return eventually(() => this.synced)
  }

  /** The names of everybody she sees in the document, herself included. */
  sees() {
    return [...this.awareness.getStates().values()].flatMap(({ user }) => user?.name ?? []).sort()
  }
}

/** A socket of Hocuspocus' client, which may serve many documents. */
export function openSocket(server, version) {
  const { HocuspocusProviderWebsocket } = HOCUSPOCUS[version]
  return new HocuspocusProviderWebsocket({
    url: `${server.url.replace('http', 'ws')}/hocuspocus`,
    WebSocketPolyfill: WebSocket,
  })
}

export class HocuspocusClient extends Client {
  constructor(server, document, who, { version, token = 'anything', socket, ...more } = {}) {
    super(who)
    this.ownSocket = !socket
    this.socket = socket ?? openSocket(server, version)
    this.denied = []
    this.stateless = []
    this.provider = new HOCUSPOCUS[version].HocuspocusProvider({
      name: document,
      document: this.doc,
      awareness: this.awareness,
      websocketProvider: this.socket,
      token,
      broadcast: false,
      preserveConnection: true,
      onAuthenticationFailed: ({ reason }) => this.denied.push(reason),
      onStateless: ({ payload }) => this.stateless.push(payload),
      ...more,
    })
    this.provider.on('unsyncedChanges', (changes) => (changes.number ?? changes) === 0 && this.hearsSaved())
    // Since version 3 a provider with a socket of somebody else's is attached by hand.
    this.provider.attach?.()
  }

  get synced() {
    return this.provider.isSynced
  }

  /** Whether her client says that everything is saved. */
  get saved() {
    return this.synced && !this.provider.hasUnsyncedChanges
  }


  disconnects() {
    this.socket.disconnect()
  }

  connects() {
    this.socket.connect()
  }

  losesTheLine() {
    this.socket.webSocket?.terminate()
  }

  leaves() {
    this.provider.destroy()
    if (this.ownSocket) this.socket.destroy()
    this.doc.destroy()
  }
}

export class YWebsocketClient extends Client {
  constructor(server, document, who, { version, token, echo } = {}) {
    super(who)
    this.echoes = echo && new Echoes()
    this.provider = new Y_WEBSOCKET[version](`${server.url.replace('http', 'ws')}/ws`, document, this.doc, {
      awareness: this.awareness,
      WebSocketPolyfill: this.echoes?.socket() ?? WebSocket,
      disableBc: true,
      params: { ...(token && { token }), ...(echo && { echo }) },
    })
  }

  /** What she was told is saved, as an update. */
  told() {
    return this.echoes.all()
  }

  get synced() {
    return this.provider.synced
  }

  disconnects() {
    this.provider.disconnect()
  }

  connects() {
    this.provider.connect()
  }

  losesTheLine() {
    this.provider.ws?.terminate()
  }

  leaves() {
    this.provider.destroy()
    this.doc.destroy()
  }
}


export class YSweetClient extends Client {
  constructor(server, document, who, { clientToken } = {}) {
    super(who)
    const url = `${server.url.replace('http', 'ws')}/d/${document}/ws`
    const open = { url, baseUrl: `${server.url}/d/${document}`, docId: document, authorization: 'full' }
    // Whoever has left asks nobody any more.
    const ask = () => (this.hasLeft ? new Promise(() => {}) : (clientToken?.() ?? Promise.resolve(open)))
    this.provider = new YSweetProvider(ask, document, this.doc, {
      awareness: this.awareness,
      WebSocketPolyfill: this.#socket(),
      showDebuggerLink: false,
    })
    this.provider.on('local-changes', (changes) => !changes && this.hearsSaved())
  }

  /** This client comes back whatever it is told. Whoever has left only knocks at a door behind which nobody is. */
  #socket() {
    const hasLeft = () => this.hasLeft
    return class extends WebSocket {
      constructor(url) {
        super(hasLeft() ? 'ws://127.0.0.1:1' : url)
      }
    }
  }

  get synced() {
    return this.provider.status === 'connected'
  }

  get saved() {
    return this.synced && !this.provider.hasLocalChanges
  }


  losesTheLine() {
    this.provider.websocket?.terminate()
  }

  disconnects() {
    this.hasLeft = true
    this.losesTheLine()
  }

  leaves() {
    this.disconnects()
    this.provider.destroy()
    this.doc.destroy()
  }
}

/** What a client of y-websocket was told is saved: with `echo=saved`, her own updates that come back. */
export class Echoes {
  #heard = []
  #all

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

  /** Everything that was reported, as an update; undefined where nothing was. */
  all() {
    const news = this.#heard.splice(0)
    if (news.length > 0) this.#all = Y.mergeUpdates([this.#all ?? Y.encodeStateAsUpdate(new Y.Doc()), ...news])
    return this.#all
  }
}

/** Every client of these two families. */
export const versions = [
  ...Object.keys(Y_WEBSOCKET).map((version) => ({ family: 'y-websocket', version, Kind: YWebsocketClient })),
  ...Object.keys(HOCUSPOCUS).map((version) => ({ family: 'hocuspocus', version, Kind: HocuspocusClient })),
]
