// The menu of ways to take the document along.
import { pathSegment } from './document-name'
import { element } from './element'
import type { Token } from './token'

const FORMATS = [
  { format: 'text', label: 'Plain text', download: false },
  { format: 'json', label: 'JSON', download: false },
  { format: 'xml', label: 'XML', download: false },
  { format: 'update', label: 'Yjs update', download: true },
]

export function fillExportMenu(documentName: string, token: Token | null): void {
  const menu = element<HTMLDetailsElement>('export')
  const access = token === null ? '' : `&token=${encodeURIComponent(token.text)}`
  const items = FORMATS.map(({ format, label, download }) => {
    const link = document.createElement('a')
    link.href = `/api/documents/${pathSegment(documentName)}?format=${format}${access}`
    link.textContent = label
    if (download) {
      link.download = `${documentName.replaceAll('/', '-')}.yjs`
    } else {
      link.target = '_blank'
      link.rel = 'noopener'
    }
    const item = document.createElement('li')
    item.append(link)
    return item
  })
  menu.querySelector('ul')!.replaceChildren(...items)

  document.addEventListener('click', (event) => {
    if (!menu.querySelector('summary')!.contains(event.target as Node)) menu.open = false
  })
  menu.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || !menu.open) return
    menu.open = false
    menu.querySelector('summary')!.focus()
  })
}
