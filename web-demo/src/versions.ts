// The document's versions, as the server's API lists, compares, names, deletes and restores them.
import type { JSONContent } from '@tiptap/core'
import { pathSegment } from './document-name'
import type { Token } from './token'

export interface Version {
  readonly id: string
  readonly name: string | null
  /** When its last edit was made, in milliseconds since 1970. */
  readonly time: number
  /** The ids of those who edited since the version before, as far as tokens tell. */
  readonly users: readonly string[]
}

export interface Page {
  readonly versions: readonly Version[]
  /** What to ask for to get older ones; null where there are none. */
  readonly next: string | null
}

/** A part of a text that was compared with an earlier one. */
export interface Part {
  /** The root type of the Yjs document that it is in. */
  readonly root: string
  readonly change: 'kept' | 'inserted' | 'deleted'
  /** The id of who inserted or deleted it, where that is known. */
  readonly user: string | null
  /** The text, with a line break behind each paragraph. */
  readonly text: string
}

/** A text as the editor has it, and what has changed in it. */
export interface Comparison {
  readonly content: JSONContent
  readonly parts: readonly Part[]
}

/** The root type that the editor writes in. */
const ROOT = 'default'

export class Versions {
  private readonly document: string

  constructor(documentName: string, private readonly token: Token | null) {
    this.document = `/api/documents/${pathSegment(documentName)}`
  }

  /** The newest ones, or those before the one with this id. */
  async list(before?: string): Promise<Page> {
    const response = await this.ask('GET', before === undefined ? '/versions' : `/versions?before=${before}`)
    // A document in which nobody has written yet.
    if (response.status === 404) return { versions: [], next: null }
    return (await accepted(response)).json()
  }

  async keep(name: string | null): Promise<Version> {
    return (await accepted(await this.ask('POST', '/versions', { name }))).json()
  }

  async rename(id: string, name: string | null): Promise<void> {
    await accepted(await this.ask('PATCH', `/versions/${id}`, { name }))
  }

  async remove(id: string): Promise<void> {
    await accepted(await this.ask('DELETE', `/versions/${id}`))
  }

  /** Makes the document what it was in this version; answers with the id of the one that it was before. */
  async restore(id: string): Promise<string | null> {
    const response = await accepted(await this.ask('POST', `/versions/${id}/restore`))
    return ((await response.json()) as { before: string | null }).before
  }

  /** A version, and what has changed in it since the one before. */
  changesIn(id: string): Promise<Comparison> {
    return this.compare(`/versions/${id}?format=prosemirror`, `/versions/${id}/changes`)
  }

  /** The text as it is now, and what has changed in it since a version. */
  changesSince(id: string): Promise<Comparison> {
    return this.compare('?format=prosemirror', `/changes?since=${id}`)
  }

  private async compare(content: string, changes: string): Promise<Comparison> {
    const responses = await Promise.all([this.ask('GET', content), this.ask('GET', changes)])
    const [found, { parts }] = await Promise.all(responses.map(async (response) => (await accepted(response)).json()))
    return { content: rootOf(found), parts: (parts as Part[]).filter((part) => part.root === ROOT) }
  }

  private async ask(method: string, path: string, body?: object): Promise<Response> {
    const headers: Record<string, string> = {}
    if (this.token) headers.authorization = `Bearer ${this.token.text}`
    if (body) headers['content-type'] = 'application/json'
    try {
      return await fetch(this.document + path, { method, headers, body: body && JSON.stringify(body) })
    } catch {
      throw new Error('the server cannot be reached')
    }
  }
}

/** The answer, if it is a good one; what the server says of it is thrown if not. */
async function accepted(response: Response): Promise<Response> {
  if (response.ok) return response
  const problem = (await response.json().catch(() => ({}))) as { detail?: string }
  throw new Error(problem.detail ?? `the server answered ${response.status}`)
}

/** The editor's text in what the server has: several root types stand side by side, under their names. */
function rootOf(found: JSONContent & Record<string, unknown>): JSONContent {
  if (found.type === 'doc') return found
  return (found[ROOT] as JSONContent | undefined) ?? { type: 'doc', content: [] }
}
