// Says when something was, as people say it.

const UNITS = [
  { unit: 'year', seconds: 365 * 86_400 },
  { unit: 'month', seconds: 30 * 86_400 },
  { unit: 'day', seconds: 86_400 },
  { unit: 'hour', seconds: 3_600 },
  { unit: 'minute', seconds: 60 },
] as const

const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' })
const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' })

/** How long ago that was. */
export function ago(time: number): string {
  const seconds = (Date.now() - time) / 1_000
  const found = UNITS.find((one) => seconds >= one.seconds)
  return found ? relative.format(-Math.floor(seconds / found.seconds), found.unit) : 'just now'
}

/** An element that says how long ago that was, and to who points at it, when. */
export function timeElement(time: number): HTMLTimeElement {
  const shown = document.createElement('time')
  shown.dateTime = new Date(time).toISOString()
  shown.title = full.format(time)
  shown.textContent = ago(time)
  return shown
}

/** Brings all such elements of the page up to date. */
export function tellTimeAnew(): void {
  for (const shown of document.querySelectorAll('time')) {
    const words = ago(Date.parse(shown.dateTime))
    if (shown.textContent !== words) shown.textContent = words
  }
}
