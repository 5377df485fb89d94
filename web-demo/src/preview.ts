// Shows a version in place of the paper, with what has changed, and what can be done with it.
import { Editor } from '@tiptap/core'
import { Plugin } from '@tiptap/pm/state'
import { FORMATTING } from './editor'
import { element } from './element'
import { marksOf } from './marks'
import type { Person } from './person'
import { timeElement } from './time'
import type { Comparison, Part, Version, Versions } from './versions'

export interface Actions {
  readonly back: () => void
  readonly restore: (version: Version) => void
  readonly rename: (version: Version) => void
  readonly remove: (version: Version) => void
}

export class Preview {
  private readonly section = element('preview')
  private readonly title = element('preview-title')
  private readonly summary = element('preview-summary')
  private readonly place = element('preview-text')
  private readonly removal = element('preview-remove')
  private readonly since = this.section.querySelector<HTMLInputElement>('[value="since"]')!
  private version: Version | null = null
  private editor: Editor | null = null

  constructor(
    private readonly versions: Versions,
    private readonly author: (user: string | null) => Person,
    private readonly may: { readonly write: boolean; readonly remove: boolean },
    actions: Actions,
  ) {
    const onClick = (id: string, act: (version: Version) => void): void => {
      element(id).addEventListener('click', () => this.version && act(this.version))
    }
    onClick('preview-back', actions.back)
    onClick('preview-restore', actions.restore)
    onClick('preview-rename', actions.rename)
    onClick('preview-remove', actions.remove)
    element('preview-restore').hidden = element('preview-rename').hidden = !may.write
    this.section.addEventListener('change', () => void this.compare())
    this.section.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') actions.back()
    })
  }

  /** The newest version cannot be deleted: the document builds on it. */
  show(version: Version, isNewest: boolean): void {
    const isAnother = version.id !== this.version?.id
    this.version = version
    this.title.replaceChildren(version.name ?? timeElement(version.time))
    this.removal.hidden = isNewest || !this.may.remove
    this.uncover(true)
    if (isAnother) void this.compare()
  }

  close(): void {
    this.version = null
    this.editor?.destroy()
    this.editor = null
    this.summary.textContent = ''
    this.uncover(false)
  }

  focus(): void {
    this.title.focus()
  }

  private uncover(shown: boolean): void {
    this.section.hidden = !shown
    element('toolbar').hidden = element('editor').hidden = shown
  }

  private async compare(): Promise<void> {
    const { version } = this
    if (!version) return
    const since = this.since.checked
    try {
      const found = await (since ? this.versions.changesSince(version.id) : this.versions.changesIn(version.id))
      // Something else may have been chosen meanwhile.
      if (this.version?.id === version.id && this.since.checked === since) this.draw(found)
    } catch (error) {
      if (this.version?.id === version.id) this.summary.textContent = `It cannot be shown: ${(error as Error).message}.`
    }
  }

  private draw({ content, parts }: Comparison): void {
    this.editor?.destroy()
    this.editor = new Editor({
      element: this.place,
      editable: false,
      extensions: [FORMATTING],
      content,
      editorProps: {
        attributes: { 'data-testid': 'preview-text', role: 'document', 'aria-labelledby': 'preview-title', tabindex: '0' },
      },
    })
    const marks = marksOf(this.editor.state.doc, parts, (user) => this.author(user).name)
    this.editor.registerPlugin(new Plugin({ props: { decorations: () => marks } }))
    this.summary.textContent = inWords(parts)
  }
}

/** How much has changed. */
function inWords(parts: readonly Part[]): string {
  const count = (change: Part['change'], one: string, many: string): string[] => {
    const found = parts.filter((part) => part.change === change && part.text.trim() !== '').length
    return found === 0 ? [] : [`${found} ${found === 1 ? one : many}`]
  }
  const counts = [...count('inserted', 'insertion', 'insertions'), ...count('deleted', 'deletion', 'deletions')]
  return counts.length === 0 ? 'No text has changed' : counts.join(', ')
}
