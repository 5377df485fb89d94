// The editor: Tiptap on the document's text, with the carets of the people in it.
import { Editor } from '@tiptap/core'
import Collaboration from '@tiptap/extension-collaboration'
import CollaborationCaret from '@tiptap/extension-collaboration-caret'
import { Placeholder } from '@tiptap/extensions'
import StarterKit from '@tiptap/starter-kit'
import type { Awareness } from 'y-protocols/awareness'
import type * as Y from 'yjs'
import { drawCaret, drawSelection, tidyCarets, wakeLabels } from './carets'
import { presenceForCarets } from './presence'

/** How text can be formatted here. */
export const FORMATTING = StarterKit.configure({
  heading: { levels: [1, 2, 3] },
  // Undoing is Collaboration's: it takes back this visitor's changes and leaves other people's.
  undoRedo: false,
  // Every client that opens a text ending in a heading would add its own line after it.
  trailingNode: false,
})

/** Starts the editor of this document inside the given element. */
export function createEditor(place: HTMLElement, ydoc: Y.Doc, awareness: Awareness): Editor {
  const editor = new Editor({
    element: place,
    extensions: [
      FORMATTING,
      Placeholder.configure({ placeholder: 'Start writing…' }),
      Collaboration.configure({ document: ydoc }),
      CollaborationCaret.configure({
        provider: { awareness: presenceForCarets(awareness) },
        user: awareness.getLocalState()!.user,
        render: drawCaret,
        selectionRender: drawSelection,
      }),
    ],
    editorProps: {
      attributes: {
        id: 'text',
        'data-testid': 'editor',
        role: 'textbox',
        'aria-multiline': 'true',
        'aria-label': 'Text of the document',
      },
    },
  })

  let tidying = 0
  editor.on('transaction', () => {
    cancelAnimationFrame(tidying)
    tidying = requestAnimationFrame(() => tidyCarets(place, awareness))
  })
  awareness.on('change', ({ updated }: { updated: number[] }) => wakeLabels(place, updated))
  return editor
}
