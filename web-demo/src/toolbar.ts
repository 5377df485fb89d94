// The toolbar: one button per way to shape the text, each showing whether it is in force here.
import type { ChainedCommands, Editor } from '@tiptap/core'
import { ICONS, icon } from './icons'

interface Tool {
  readonly label: string
  /** A picture, or a letter that is one. */
  readonly face: string
  /** The keys, as the editor knows them. */
  readonly keys?: string
  readonly run: (chain: ChainedCommands) => ChainedCommands
  readonly isActive?: (editor: Editor) => boolean
  readonly isPossible?: (editor: Editor) => boolean
}

const heading = (level: 1 | 2 | 3): Tool => ({
  label: `Heading ${level}`,
  face: `H${level}`,
  keys: `Mod+Alt+${level}`,
  run: (chain) => chain.toggleHeading({ level }),
  isActive: (editor) => editor.isActive('heading', { level }),
})

const named = (name: string) => (editor: Editor): boolean => editor.isActive(name)

const GROUPS: readonly (readonly Tool[])[] = [
  [heading(1), heading(2), heading(3)],
  [
    { label: 'Bold', face: 'B', keys: 'Mod+B', run: (chain) => chain.toggleBold(), isActive: named('bold') },
    { label: 'Italic', face: 'I', keys: 'Mod+I', run: (chain) => chain.toggleItalic(), isActive: named('italic') },
    { label: 'Strike', face: 'S', keys: 'Mod+Shift+S', run: (chain) => chain.toggleStrike(), isActive: named('strike') },
    { label: 'Code', face: ICONS.code, keys: 'Mod+E', run: (chain) => chain.toggleCode(), isActive: named('code') },
  ],
  [
    { label: 'Bullet list', face: ICONS.bulletList, keys: 'Mod+Shift+8', run: (chain) => chain.toggleBulletList(), isActive: named('bulletList') },
    { label: 'Numbered list', face: ICONS.orderedList, keys: 'Mod+Shift+7', run: (chain) => chain.toggleOrderedList(), isActive: named('orderedList') },
    { label: 'Quote', face: ICONS.blockquote, keys: 'Mod+Shift+B', run: (chain) => chain.toggleBlockquote(), isActive: named('blockquote') },
    { label: 'Code block', face: ICONS.codeBlock, keys: 'Mod+Alt+C', run: (chain) => chain.toggleCodeBlock(), isActive: named('codeBlock') },
    { label: 'Horizontal rule', face: ICONS.horizontalRule, run: (chain) => chain.setHorizontalRule() },
  ],
  [
    { label: 'Undo', face: ICONS.undo, keys: 'Mod+Z', run: (chain) => chain.undo(), isPossible: (editor) => editor.can().undo() },
    { label: 'Redo', face: ICONS.redo, keys: 'Mod+Shift+Z', run: (chain) => chain.redo(), isPossible: (editor) => editor.can().redo() },
  ],
]

export function attachToolbar(toolbar: HTMLElement, editor: Editor, openLinkDialog: () => void): void {
  const updates: (() => void)[] = []

  const addButton = (group: HTMLElement, tool: Omit<Tool, 'run'>, press: () => void): void => {
    const button = createButton(tool)
    // A button that took the focus would put the phone's keyboard away.
    button.addEventListener('mousedown', (event) => event.preventDefault())
    // A disabled button would drop the focus of somebody who walks the bar by keyboard.
    button.addEventListener('click', () => {
      if (button.getAttribute('aria-disabled') !== 'true') press()
    })
    updates.push(() => {
      if (tool.isActive) button.setAttribute('aria-pressed', String(tool.isActive(editor)))
      button.setAttribute('aria-disabled', String(!editor.isEditable || (tool.isPossible?.(editor) ?? true) === false))
    })
    group.append(button)
  }

  for (const tools of GROUPS) {
    const group = document.createElement('div')
    group.className = 'tools'
    for (const tool of tools) addButton(group, tool, () => tool.run(editor.chain().focus()).run())
    toolbar.append(group)
  }
  const inline = toolbar.children[1] as HTMLElement
  addButton(inline, { label: 'Link', face: ICONS.link, keys: 'Mod+K', isActive: named('link') }, openLinkDialog)

  const update = (): void => updates.forEach((updateOne) => updateOne())
  editor.on('transaction', update)
  editor.on('update', update)
  update()
  walkByArrows(toolbar)
}

function createButton({ label, face, keys, isActive }: Omit<Tool, 'run'>): HTMLButtonElement {
  const button = document.createElement('button')
  button.type = 'button'
  button.dataset.tool = label
  button.append(face.length <= 2 ? face : icon(face))
  button.setAttribute('aria-label', label)
  button.title = keys ? `${label} (${keysInWords(keys)})` : label
  if (isActive) button.setAttribute('aria-pressed', 'false')
  return button
}

function keysInWords(keys: string): string {
  const isApple = /Mac|iPhone|iPad/.test(navigator.platform)
  if (!isApple) return keys.replace('Mod', 'Ctrl')
  return keys.replace('Mod', '⌘').replace('Alt', '⌥').replace('Shift', '⇧').replaceAll('+', '')
}

/** The bar is one stop for the Tab key; the arrows walk inside it. */
function walkByArrows(toolbar: HTMLElement): void {
  const buttons = [...toolbar.querySelectorAll('button')]
  const makeStop = (stop: HTMLButtonElement): void => buttons.forEach((button) => (button.tabIndex = button === stop ? 0 : -1))
  makeStop(buttons[0]!)
  toolbar.addEventListener('focusin', (event) => makeStop(event.target as HTMLButtonElement))
  toolbar.addEventListener('keydown', (event) => {
    const here = buttons.indexOf(document.activeElement as HTMLButtonElement)
    const steps: Record<string, number> = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: -1 }
    const target = steps[event.key]
    if (target === undefined) return
    event.preventDefault()
    buttons.at(target % buttons.length)!.focus()
  })
}
