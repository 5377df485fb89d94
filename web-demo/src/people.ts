// The list of who is here; its first entry is this visitor, who can take another name or colour there.
import type { Awareness } from 'y-protocols/awareness'
import { element } from './element'
import { cleanName, initials, keepPerson, MAX_NAME_LENGTH, nextColor, type Person, textColorOn } from './person'
import { peopleHere, type PersonHere } from './presence'

export function showPeople(awareness: Awareness): void {
  const list = element('people')
  const visitor = awareness.getLocalState()!.user as Person
  const own = ownEntry({ clientId: awareness.clientID, ...visitor }, (person) => {
    keepPerson(person)
    awareness.setLocalStateField('user', person)
  })
  list.append(own)

  let shown = ''
  const update = (): void => {
    const others = peopleHere(awareness).filter((person) => person.clientId !== awareness.clientID)
    others.sort((one, other) => one.name.localeCompare(other.name) || one.clientId - other.clientId)
    // Presence changes with every caret; the list only with its people.
    const next = JSON.stringify(others)
    if (next === shown) return
    shown = next
    list.replaceChildren(own, ...others.map(entry))
  }
  awareness.on('change', update)
  update()
}

function entry(person: PersonHere): HTMLLIElement {
  const item = document.createElement('li')
  item.dataset.clientId = String(person.clientId)
  const picture = avatar('span')
  paintAvatar(picture, person)
  picture.setAttribute('aria-hidden', 'true')
  const name = document.createElement('span')
  name.className = 'name'
  name.textContent = person.name
  item.append(picture, name)
  return item
}

function ownEntry(visitor: PersonHere, change: (person: Person) => void): HTMLLIElement {
  let person: Person = { id: visitor.id, name: visitor.name, color: visitor.color }

  const item = document.createElement('li')
  item.className = 'own'
  item.dataset.clientId = String(visitor.clientId)

  const picture = avatar('button')
  picture.type = 'button'
  picture.title = 'Take another colour'
  picture.setAttribute('aria-label', 'Take another colour')

  // The field lies over the same name as text, and so is exactly as wide as the name.
  const field = document.createElement('input')
  field.dataset.testid = 'my-name'
  field.setAttribute('aria-label', 'Your name')
  field.title = 'Your name'
  field.maxLength = MAX_NAME_LENGTH
  field.autocomplete = 'off'
  field.spellcheck = false
  field.value = person.name
  const measure = document.createElement('span')
  measure.setAttribute('aria-hidden', 'true')
  const name = document.createElement('span')
  name.className = 'name'
  name.append(measure, field)

  const you = document.createElement('span')
  you.className = 'you'
  you.textContent = 'you'

  const show = (): void => {
    measure.textContent = field.value
    paintAvatar(picture, person)
  }
  const become = (next: Person): void => {
    if (next.name === person.name && next.color === person.color) return
    person = next
    change(person)
  }

  // The focus stays in the text, and with it the caret, which others see change.
  picture.addEventListener('mousedown', (event) => event.preventDefault())
  picture.addEventListener('click', () => {
    become({ ...person, color: nextColor(person.color) })
    show()
  })
  field.addEventListener('input', () => {
    // An empty field is a name being changed, not a person without one.
    become({ ...person, name: cleanName(field.value) ?? person.name })
    show()
  })
  field.addEventListener('blur', () => {
    field.value = person.name
    show()
  })
  field.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') field.blur()
  })

  show()
  item.append(picture, name, ' ', you)
  return item
}

export function avatar<Tag extends 'span' | 'button'>(tag: Tag): HTMLElementTagNameMap[Tag] {
  const picture = document.createElement(tag)
  picture.className = 'avatar'
  return picture
}

export function paintAvatar(picture: HTMLElement, person: Person): void {
  picture.style.setProperty('--person', person.color)
  picture.style.setProperty('--on-person', textColorOn(person.color))
  // As an attribute, the initials do not mix with the name in the entry's text.
  picture.dataset.initials = initials(person.name)
}
