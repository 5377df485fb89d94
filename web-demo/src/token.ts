// The token with which this page was opened: what it says of this visitor, and how it goes to the server.

export interface Token {
  /** What the server asks for. */
  readonly text: string
  /** The visitor's id, which the server writes to what the visitor edits. */
  readonly id: string | undefined
  /** The visitor's name and color, where it says so. */
  readonly name: unknown
  readonly color: unknown
  /** What it allows. */
  readonly rules: readonly { readonly name: string; readonly level: string }[]
}

const KEY = 'quire:token'

/** The token in this page's address, which does not show it from now on; else the one that this tab came with. */
export function tokenOfThisPage(): Token | null {
  const page = new URL(location.href)
  const given = page.searchParams.get('token')
  if (given === null) return read(recall())
  try {
    // Other tabs are other visits.
    sessionStorage.setItem(KEY, given)
    page.searchParams.delete('token')
    history.replaceState(null, '', page)
  } catch {
    // Storage can be forbidden; then the address keeps it.
  }
  return read(given)
}

/** What one may do with a document; each level includes the ones before. */
const LEVELS = ['read', 'write', 'admin'] as const

/** Whether this visitor may do so much with the document; the server has the last word. It asks nobody where there is no token. */
export function may(token: Token | null, wanted: (typeof LEVELS)[number], documentName: string): boolean {
  if (token === null) return true
  return token.rules.some(({ name, level }) => {
    const matches = name.endsWith('*') ? documentName.startsWith(name.slice(0, -1)) : name === documentName
    return matches && LEVELS.findIndex((one) => one === level) >= LEVELS.indexOf(wanted)
  })
}

function read(text: string | null): Token | null {
  if (text === null || text === '') return null
  const claims = claimsOf(text)
  const documents = Array.isArray(claims.documents) ? claims.documents : []
  const rules = documents.filter((rule) => typeof rule?.name === 'string' && typeof rule?.level === 'string')
  const id = typeof claims.sub === 'string' ? claims.sub : undefined
  return { text, id, name: claims.name ?? claims.sub, color: claims.color, rules }
}

function claimsOf(text: string): Record<string, unknown> {
  try {
    const payload = (text.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/')
    const bytes = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0))
    return JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>
  } catch {
    return {}
  }
}

function recall(): string | null {
  try {
    return sessionStorage.getItem(KEY)
  } catch {
    return null
  }
}
