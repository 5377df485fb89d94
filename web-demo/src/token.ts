// The token with which this page was opened: what it says of this visitor, and how it goes to the server.

export interface Token {
  /** What the server asks for. */
  readonly text: string
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

/** Whether the token lets this visitor change the document; the server has the last word. */
export function mayWrite(token: Token, documentName: string): boolean {
  return token.rules.some(({ name, level }) => {
    const matches = name.endsWith('*') ? documentName.startsWith(name.slice(0, -1)) : name === documentName
    return matches && (level === 'write' || level === 'admin')
  })
}

function read(text: string | null): Token | null {
  if (text === null || text === '') return null
  const claims = claimsOf(text)
  const documents = Array.isArray(claims.documents) ? claims.documents : []
  const rules = documents.filter((rule) => typeof rule?.name === 'string' && typeof rule?.level === 'string')
  return { text, name: claims.name ?? claims.sub, color: claims.color, rules }
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
