// The history panel: the versions of the document, with who wrote them, and the way back to one.
import type { Awareness } from 'y-protocols/awareness'
import { ask } from './ask'
import { authorWithId } from './authors'
import { element } from './element'
import { avatar, paintAvatar } from './people'
import type { Person } from './person'
import { Preview } from './preview'
import { tellTimeAnew, timeElement } from './time'
import { say } from './toast'
import { may, type Token } from './token'
import { type Version, Versions } from './versions'

/** How often an open panel looks for versions that others have kept. */
const LOOK_MILLISECONDS = 10_000

export function attachHistory(documentName: string, token: Token | null, awareness: Awareness): void {
  const versions = new Versions(documentName, token)
  const author = (user: string | null): Person => authorWithId(awareness, user)
  const allowed = { write: may(token, 'write', documentName), remove: may(token, 'admin', documentName) }

  const button = element<HTMLButtonElement>('history')
  const panel = element('history-panel')
  const list = element('versions')
  const hint = element('history-hint')
  const older = element<HTMLButtonElement>('history-older')
  const form = element<HTMLFormElement>('history-save')
  const field = element<HTMLInputElement>('history-name')
  form.hidden = !allowed.write

  let found: readonly Version[] = []
  let chosen: string | null = null
  let pages = 1
  let looking = 0
  let shown = ''

  const preview = new Preview(versions, author, allowed, { back: () => choose(null), restore, rename, remove })

  function open(): void {
    panel.hidden = false
    button.setAttribute('aria-expanded', 'true')
    element('history-title').focus()
    looking = window.setInterval(() => document.hidden || void look(), LOOK_MILLISECONDS)
    void look()
  }

  function close(): void {
    clearInterval(looking)
    choose(null)
    panel.hidden = true
    button.setAttribute('aria-expanded', 'false')
    button.focus()
  }

  /** Asks the server what there is. */
  async function look(): Promise<void> {
    try {
      let page = await versions.list()
      const all = [...page.versions]
      for (let more = 1; more < pages && page.next !== null; more += 1) {
        page = await versions.list(page.next)
        all.push(...page.versions)
      }
      found = all
      older.hidden = page.next === null
      hint.textContent = ''
    } catch (error) {
      hint.textContent = `The history cannot be read: ${(error as Error).message}.`
    }
    draw()
  }

  function draw(): void {
    tellTimeAnew()
    element('history-empty').hidden = found.length > 0 || hint.textContent !== ''
    const rows = found.map((version) => ({ ...version, authors: (version.users.length ? version.users : [null]).map(author) }))
    const next = JSON.stringify([rows, chosen])
    if (next === shown) return
    shown = next
    const focused = list.contains(document.activeElement) && (document.activeElement as HTMLElement).dataset.version
    list.replaceChildren(...[nowEntry(), ...rows.map(entry)].map(asChoice))
    if (typeof focused === 'string') focusOn(focused)
  }

  function asChoice(row: HTMLButtonElement): HTMLLIElement {
    row.setAttribute('aria-current', String(row.dataset.version === (chosen ?? '')))
    row.addEventListener('click', () => choose(row.dataset.version || null))
    const item = document.createElement('li')
    item.append(row)
    return item
  }

  function focusOn(id: string): void {
    list.querySelector<HTMLElement>(`[data-version="${CSS.escape(id)}"]`)?.focus()
  }

  /** Shows a version; none is the text as it is now. */
  function choose(id: string | null): void {
    const before = chosen
    const index = found.findIndex((version) => version.id === id)
    chosen = index < 0 ? null : id
    if (chosen === null) preview.close()
    else preview.show(found[index]!, index === 0)
    draw()
    // On a small screen the panel makes room for the version, and comes back after it.
    if (chosen !== null && !isInSight(panel)) preview.focus()
    if (chosen === null && before !== null) focusOn(before)
  }

  /** Does something that may fail, and shows what has come of it. */
  async function attempt(act: () => Promise<void>): Promise<void> {
    try {
      await act()
    } catch (error) {
      say(`That did not work: ${(error as Error).message}.`)
    }
    await look()
  }

  async function restore(version: Version): Promise<void> {
    const words = 'Everybody sees the document as it was then. The way it is now stays in the history.'
    if ((await ask({ title: 'Restore this version?', words, action: 'Restore' })) === null) return
    await attempt(async () => {
      const before = await versions.restore(version.id)
      const panelGaveWay = !isInSight(panel)
      choose(null)
      if (panelGaveWay) close()
      else focusOn('')
      const undo = { label: 'Undo', run: () => void attempt(() => takeBack(before!)) }
      say('Restored.', before === null ? undefined : undo)
    })
  }

  async function takeBack(before: string): Promise<void> {
    await versions.restore(before)
    say('The document is again what it was.')
  }

  async function rename(version: Version): Promise<void> {
    const words = 'A version with a name is kept for good. Without a name it may be thinned out when it is old.'
    const name = await ask({ title: 'Name of this version', words, action: 'Save', name: version.name ?? '' })
    if (name === null) return
    await attempt(() => versions.rename(version.id, name || null))
    if (chosen === version.id) choose(version.id)
  }

  async function remove(version: Version): Promise<void> {
    const words = 'The text stays. What was changed in this version belongs to the next one then.'
    if ((await ask({ title: 'Delete this version?', words, action: 'Delete' })) === null) return
    await attempt(async () => {
      await versions.remove(version.id)
      choose(null)
      focusOn('')
    })
  }

  button.addEventListener('click', () => (panel.hidden ? open() : close()))
  element('history-close').addEventListener('click', close)
  panel.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') close()
  })
  older.addEventListener('click', () => {
    pages += 1
    void look()
  })
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    void attempt(async () => {
      await versions.keep(field.value.trim() || null)
      field.value = ''
      say('The version is saved.')
    })
  })
  awareness.on('change', () => panel.hidden || draw())
}

function isInSight(part: HTMLElement): boolean {
  return part.getClientRects().length > 0
}

function nowEntry(): HTMLButtonElement {
  const row = rowButton('')
  row.append(line('version-title', 'Now'))
  return row
}

function entry(version: Version & { readonly authors: readonly Person[] }): HTMLButtonElement {
  const row = rowButton(version.id)
  const time = timeElement(version.time)
  if (version.name === null) row.append(line('version-title', time))
  else row.append(line('version-title', version.name), line('version-time', time))
  row.append(line('authors', ...version.authors.map(authorElement)))
  return row
}

function rowButton(id: string): HTMLButtonElement {
  const row = document.createElement('button')
  row.type = 'button'
  row.dataset.version = id
  return row
}

function line(kind: string, ...content: (Node | string)[]): HTMLSpanElement {
  const made = document.createElement('span')
  made.className = kind
  made.append(...content)
  return made
}

function authorElement(person: Person): HTMLSpanElement {
  const picture = avatar('span')
  paintAvatar(picture, person)
  picture.setAttribute('aria-hidden', 'true')
  const author = line('author', picture, line('name', person.name))
  if (person.id !== undefined) author.title = person.id
  return author
}
