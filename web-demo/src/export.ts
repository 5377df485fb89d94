// The menu of ways to take the document along: as files for people, and as what programs read.
import { pathSegment } from './document-name'
import { element } from './element'
import { say } from './toast'
import type { Token } from './token'

const FORMATS = [
  { format: 'markdown', label: 'Markdown', ending: 'md' },
  { format: 'html', label: 'Web page', ending: 'html' },
  { format: 'text', label: 'Plain text', ending: 'txt' },
  { format: 'json', label: 'JSON', ending: 'json' },
  { format: 'xml', label: 'XML', ending: 'xml' },
  { format: 'update', label: 'Yjs update', ending: 'yjs' },
]

export function fillExportMenu(documentName: string, token: Token | null): void {
  const menu = element<HTMLDetailsElement>('export')
  const access = token === null ? '' : `&token=${encodeURIComponent(token.text)}`
  const items = FORMATS.map(({ format, label, ending }) => {
    const link = document.createElement('a')
    link.href = `/api/documents/${pathSegment(documentName)}?format=${format}${access}`
    link.textContent = label
    link.download = `${fileName(documentName)}.${ending}`
    if (format === 'html') link.addEventListener('click', (event) => savePage(event, link, documentName))
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

/** A name that every file system takes. */
function fileName(documentName: string): string {
  return documentName.replace(/[/\\:*?"<>|]+/g, '-').replace(/^[.\s-]+/, '').slice(0, 100) || 'document'
}

/** Saves the text as a page of its own: the server gives what stands in a page, without its head. */
async function savePage(event: MouseEvent, link: HTMLAnchorElement, title: string): Promise<void> {
  event.preventDefault()
  const response = await fetch(link.href).catch(() => null)
  if (!response?.ok) return say('The document could not be exported: try again when the server can be reached.')
  // A browser escapes the title; what others wrote the server has escaped, and it stays text here.
  const head = document.implementation.createHTMLDocument(title).head.innerHTML
  const page = `<!doctype html>\n<meta charset="utf-8">\n${head}\n<body>\n${await response.text()}\n</body>\n`
  const file = new Blob([page], { type: 'text/html' })
  const download = document.createElement('a')
  download.href = URL.createObjectURL(file)
  download.download = link.download
  download.click()
  URL.revokeObjectURL(download.href)
}
