// Copies the link to the document.
import { pageAddress } from './document-name'
import { element } from './element'

const CONFIRMATION_MILLISECONDS = 2_000

export function attachShare(documentName: string): void {
  const button = element<HTMLButtonElement>('share')
  const words = button.textContent
  let resting = 0
  // The button's own words say that it worked, to the eye and to a screen reader.
  button.setAttribute('aria-live', 'polite')
  button.addEventListener('click', async () => {
    const address = pageAddress(documentName)
    if (!(await copied(address))) return offerToCopy(address)
    button.textContent = 'Link copied'
    clearTimeout(resting)
    resting = window.setTimeout(() => (button.textContent = words), CONFIRMATION_MILLISECONDS)
  })
}

async function copied(text: string): Promise<boolean> {
  try {
    // Absent on plain http, and may be refused.
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return false
  }
}

/** Shows the address selected, ready to be copied by hand. */
function offerToCopy(address: string): void {
  const field = element<HTMLInputElement>('share-address')
  field.value = address
  element<HTMLDialogElement>('share-dialog').showModal()
  field.select()
}
