// Reads and writes the document's name in addresses: the page's, the connection's and the API's.
import { pick } from './pick'

/** The longest name that the server takes, in bytes of UTF-8. */
const MAX_NAME_BYTES = 1_000

const QUALITIES = ['quiet', 'amber', 'gentle', 'silver', 'early', 'mossy', 'bright', 'northern', 'paper', 'golden', 'winter', 'little']
const PLACES = ['river', 'harbour', 'meadow', 'orchard', 'lantern', 'island', 'forest', 'garden', 'valley', 'window', 'bridge', 'shore']

/** The name in this page's address; if there is none, a new one, which the address shows from now on. */
export function documentNameOfThisPage(): string {
  const page = new URL(location.href)
  const asked = page.searchParams.get('document')
  if (asked !== null && isDocumentName(asked)) return asked

  const name = `${pick(QUALITIES)}-${pick(PLACES)}-${Math.floor(Math.random() * 90) + 10}`
  page.searchParams.set('document', name)
  history.replaceState(null, '', page)
  return name
}

/** Whether the server would take this name, and a URL can carry it. */
export function isDocumentName(name: string): boolean {
  // A URL resolves a segment of one or two dots away, even percent-encoded.
  if (name === '' || name === '.' || name === '..') return false
  return !/\p{Cc}/u.test(name) && new TextEncoder().encode(name).length <= MAX_NAME_BYTES
}

/** The address of a document's page, which is also the link that people share. */
export function pageAddress(name: string): string {
  // A slash may stand as it is in a query, and is easier to read.
  return `${location.origin}/?document=${encodeURIComponent(name).replaceAll('%2F', '/')}`
}

/** The name as one segment of a path, for the connection and the API. */
export function pathSegment(name: string): string {
  return encodeURIComponent(name)
}
