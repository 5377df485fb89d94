// Asks where a link leads.
import type { Editor } from '@tiptap/core'
import { element } from './element'

/** Gives the editor its link dialog; what is returned opens it. */
export function attachLinkDialog(editor: Editor): () => void {
  const dialog = element<HTMLDialogElement>('link-dialog')
  const field = element<HTMLInputElement>('link-address')
  const hint = element('link-hint')
  const remove = dialog.querySelector<HTMLButtonElement>('[value="remove"]')!

  const open = (): void => {
    hint.textContent = ''
    field.value = editor.getAttributes('link').href ?? ''
    remove.hidden = !editor.isActive('link')
    dialog.showModal()
    field.select()
  }

  dialog.querySelector('form')!.addEventListener('submit', (event) => {
    const choice = (event.submitter as HTMLButtonElement).value
    const chain = editor.chain().focus().extendMarkRange('link')
    if (choice === 'cancel') return
    if (choice === 'remove' || field.value.trim() === '') return void chain.unsetLink().run()
    const href = withScheme(field.value.trim())
    if (!leadsSomewhere(href)) {
      event.preventDefault()
      hint.textContent = 'A link can lead to a web page, a mail address or a telephone number.'
    } else if (editor.state.selection.empty && !editor.isActive('link')) {
      // What is typed after the space is no longer part of the link.
      const link = { type: 'text', text: href, marks: [{ type: 'link', attrs: { href } }] }
      chain.insertContent([link, { type: 'text', text: ' ' }]).run()
    } else {
      chain.setLink({ href }).run()
    }
  })
  dialog.addEventListener('close', () => editor.commands.focus())

  editor.view.dom.addEventListener('keydown', (event) => {
    if (event.key.toLowerCase() !== 'k' || !(event.metaKey || event.ctrlKey) || event.shiftKey || event.altKey) return
    event.preventDefault()
    open()
  })
  return open
}

/** Most people write an address without its scheme. */
function withScheme(address: string): string {
  return /^([a-z][a-z0-9+.-]*:|[/#?])/i.test(address) ? address : `https://${address}`
}

/** Whether a browser follows this address, rather than run it. */
function leadsSomewhere(href: string): boolean {
  const address = URL.canParse(href, location.href) ? new URL(href, location.href) : null
  return address !== null && ['http:', 'https:', 'mailto:', 'tel:'].includes(address.protocol)
}
