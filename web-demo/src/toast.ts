// Says at the foot of the page what was done, and offers to undo it.
import { element } from './element'

/** Milliseconds to read it, and those to think better of it. */
const READING = 6_000
const THINKING = 30_000

let going = 0

/** Says this for a while; with a button where something can be done about it. */
export function say(words: string, offer?: { readonly label: string; readonly run: () => void }): void {
  const toast = element('toast')
  const button = element<HTMLButtonElement>('toast-action')
  // A screen reader says what appears in an element that is there already.
  toast.hidden = false
  element('toast-words').textContent = words
  button.hidden = offer === undefined
  button.textContent = offer?.label ?? ''
  button.onclick = () => {
    hide()
    offer?.run()
  }
  element('toast-close').onclick = hide
  clearTimeout(going)
  going = window.setTimeout(hide, offer ? THINKING : READING)
}

function hide(): void {
  clearTimeout(going)
  element('toast').hidden = true
  // What is said again is news to a screen reader only if it was gone.
  element('toast-words').textContent = ''
}
