// Asks before something is done that is hard to take back, or for a name.
import { element } from './element'

export interface Question {
  readonly title: string
  readonly words?: string
  /** What the button says that does it. */
  readonly action: string
  /** What stands in the field for a name at first; there is no field where this is not given. */
  readonly name?: string
}

/** What was written into the field; null where the visitor would rather not. */
export function ask({ title, words, action, name }: Question): Promise<string | null> {
  const dialog = element<HTMLDialogElement>('ask-dialog')
  const field = element<HTMLInputElement>('ask-name')
  element('ask-title').textContent = title
  element('ask-words').textContent = words ?? ''
  element('ask-action').textContent = action
  field.hidden = name === undefined
  field.value = name ?? ''
  dialog.returnValue = ''
  dialog.showModal()
  if (name !== undefined) field.select()
  return new Promise((resolve) => {
    const answer = (): void => resolve(dialog.returnValue === 'yes' ? field.value.trim() : null)
    dialog.addEventListener('close', answer, { once: true })
  })
}
