// The pictures on the toolbar's buttons, as strokes in a square of 24.

export const ICONS = {
  code: 'm8.5 7.5-4.5 4.5 4.5 4.5M15.5 7.5l4.5 4.5-4.5 4.5',
  bulletList: 'M10 6h10M10 12h10M10 18h10M5 6h.01M5 12h.01M5 18h.01',
  orderedList: 'M11 6h9M11 12h9M11 18h9M4.4 5 6 4v5M4.2 15.6c.2-1.8 2.9-1.7 2.8.1-.1 1.2-2.8 2.2-2.8 3.8h3',
  blockquote: 'M5 5v14M10 7h10M10 12h10M10 17h6',
  codeBlock: 'M5.5 4.5h13a1.5 1.5 0 0 1 1.5 1.5v12a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 18V6a1.5 1.5 0 0 1 1.5-1.5M9.5 9.5 7 12l2.5 2.5M14.5 9.5 17 12l-2.5 2.5',
  horizontalRule: 'M4 12h16M8 6.5h8M8 17.5h8',
  link: 'M10 13.5a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.7-5.7l-1.4 1.4M14 10.5a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.7 5.7l1.4-1.4',
  undo: 'M8.5 13.5 4 9l4.5-4.5M4 9h10.5a5.5 5.5 0 0 1 0 11H11',
  redo: 'm15.5 13.5 4.5-4.5-4.5-4.5M20 9H9.5a5.5 5.5 0 0 0 0 11H13',
} as const

/** The picture with these strokes. */
export function icon(strokes: string): SVGElement {
  const namespace = 'http://www.w3.org/2000/svg'
  const picture = document.createElementNS(namespace, 'svg')
  picture.setAttribute('viewBox', '0 0 24 24')
  picture.setAttribute('aria-hidden', 'true')
  const path = document.createElementNS(namespace, 'path')
  path.setAttribute('d', strokes)
  picture.append(path)
  return picture
}
