// Shows the document's name as the page's title, and leads to other documents.
import { isDocumentName, pageAddress } from './document-name'
import { element } from './element'

export function showTitle(documentName: string): void {
  document.title = `${documentName} · Quire`
  const title = element('document-name')
  title.textContent = documentName

  const opener = element('open-another')
  const form = element<HTMLFormElement>('open-form')
  const field = element<HTMLInputElement>('open-name')

  const setOpen = (open: boolean): void => {
    form.hidden = !open
    title.hidden = open
    opener.hidden = open
  }
  const open = (): void => {
    setOpen(true)
    field.value = documentName
    field.select()
    field.focus()
  }
  const cancel = (): void => {
    setOpen(false)
    opener.focus()
  }

  opener.addEventListener('click', open)
  title.addEventListener('click', open)
  element('open-cancel').addEventListener('click', cancel)
  form.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') cancel()
  })
  field.addEventListener('input', () => field.setCustomValidity(''))
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    const name = field.value.trim()
    if (name === documentName) return cancel()
    if (isDocumentName(name)) return location.assign(pageAddress(name))
    field.setCustomValidity('A document cannot have this name.')
    field.reportValidity()
  })
}
