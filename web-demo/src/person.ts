// A person as others see them, a name and a colour: where this visitor's comes from, and how a stranger's is checked.
import { pick } from './pick'
import type { Token } from './token'

export interface Person {
  /** The user's id in the token, where there is one. */
  readonly id?: string
  readonly name: string
  readonly color: string
}

/** The longest name shown, in characters; it keeps carets and the list legible. */
export const MAX_NAME_LENGTH = 40

// All of one lightness: white reads well on each (4.5:1), and each stands out on paper, light or dark (3:1).
const COLORS = ['#c84240', '#b95303', '#996702', '#5d7b05', '#02833b', '#037f75', '#037b9b', '#286fd3', '#7b5dcf', '#a74dad', '#c0427d']
const NEUTRAL_COLOR = '#6f6f6f'
const NAMELESS = 'Somebody'

const MOODS = ['Curious', 'Patient', 'Merry', 'Gentle', 'Brave', 'Clever', 'Sunny', 'Quiet', 'Nimble', 'Kind', 'Lively', 'Thoughtful']
const ANIMALS = ['Heron', 'Otter', 'Fox', 'Owl', 'Badger', 'Swift', 'Hare', 'Wren', 'Lynx', 'Seal', 'Robin', 'Beaver']

const NAME_KEY = 'quire:person-name'
const COLOR_KEY = 'quire:person-color'

/** This visitor: as the token says, else the link, else as kept in this browser, else as chance has it. */
export function personOfThisVisitor(token: Token | null): Person {
  const link = new URLSearchParams(location.search)
  const person = {
    id: token?.id,
    name: cleanName(token?.name) ?? cleanName(link.get('name')) ?? cleanName(recall(NAME_KEY)) ?? `${pick(MOODS)} ${pick(ANIMALS)}`,
    color: cleanColor(token?.color) ?? cleanColor(link.get('color')) ?? cleanColor(recall(COLOR_KEY)) ?? pick(COLORS),
  }
  // A token and a link speak for one page; only what the visitor got or chose without them is kept for the next.
  if (token !== null) return person
  if (!link.has('name')) remember(NAME_KEY, person.name)
  if (!link.has('color')) remember(COLOR_KEY, person.color)
  return person
}

/** Keeps what the visitor chose, over what the link said. */
export function keepPerson(person: Person): void {
  remember(NAME_KEY, person.name)
  remember(COLOR_KEY, person.color)
  const page = new URL(location.href)
  page.searchParams.delete('name')
  page.searchParams.delete('color')
  if (page.href !== location.href) history.replaceState(null, '', page)
}

/** The person in what another client says about itself, which may be anything at all. */
export function personFromStranger(claim: unknown): Person | null {
  if (typeof claim !== 'object' || claim === null) return null
  const { id, name, color } = claim as Record<string, unknown>
  return { id: typeof id === 'string' ? id : undefined, name: cleanName(name) ?? NAMELESS, color: cleanColor(color) ?? NEUTRAL_COLOR }
}

/** Who is only known by the id in their tokens, or not at all. The same id has the same colour everywhere. */
export function personWithId(id: string | null): Person {
  if (id === null) return { name: NAMELESS, color: NEUTRAL_COLOR }
  let hash = 0
  for (const character of id) hash = (Math.imul(hash, 31) + character.codePointAt(0)!) >>> 0
  return { id, name: cleanName(id) ?? NAMELESS, color: COLORS[hash % COLORS.length]! }
}

/** A name fit to show, or null if nothing is left of it. */
export function cleanName(name: unknown): string | null {
  if (typeof name !== 'string') return null
  // Control and direction characters could disturb the text around the name.
  const characters = [...name.slice(0, 1_000).replace(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu, ' ').trim()]
  if (characters.length === 0) return null
  return characters.length > MAX_NAME_LENGTH ? `${characters.slice(0, MAX_NAME_LENGTH - 1).join('')}…` : characters.join('')
}

function cleanColor(color: unknown): string | null {
  return typeof color === 'string' && /^#[0-9a-f]{6}$/i.test(color) ? color.toLowerCase() : null
}

/** The colour after this one, for a visitor who wants another. */
export function nextColor(color: string): string {
  return COLORS[(COLORS.indexOf(color) + 1) % COLORS.length]!
}

/** White or near-black, whichever reads better on this colour. */
export function textColorOn(color: string): string {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const channel = parseInt(color.slice(at, at + 2), 16) / 255
    return channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4
  }) as [number, number, number]
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
  // At this luminance both reach the same contrast.
  return luminance > 0.183 ? '#161513' : '#ffffff'
}

/** One or two letters that stand for the name. */
export function initials(name: string): string {
  const words = name.split(/\s+/)
  const letters = words.length > 1 ? [words[0]!, words.at(-1)!] : [words[0]!]
  return letters.map((word) => [...word][0] ?? '').join('').toLocaleUpperCase()
}

// Storage can be forbidden; then the visitor is somebody new each time.
function recall(key: string): string | null {
  try {
    return localStorage.getItem(key)
  } catch {
    return null
  }
}

function remember(key: string, value: string): void {
  try {
    localStorage.setItem(key, value)
  } catch {
    return
  }
}
