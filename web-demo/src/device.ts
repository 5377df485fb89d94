// Keeps the document in this browser, so that edits survive without the server.
import { IndexeddbPersistence } from 'y-indexeddb'
import type * as Y from 'yjs'

/** Starts keeping the document; tells whether this browser lets us. */
export async function keepOnDevice(documentName: string, ydoc: Y.Doc): Promise<boolean> {
  if (!(await storageWorks())) return false
  await new IndexeddbPersistence(`quire:${documentName}`, ydoc).whenSynced
  return true
}

/** Some browsers have IndexedDB and refuse to open it, which the persistence would wait on for ever. */
function storageWorks(): Promise<boolean> {
  return new Promise((resolve) => {
    try {
      const request = indexedDB.open('quire')
      request.onerror = () => resolve(false)
      request.onsuccess = () => {
        request.result.close()
        resolve(true)
      }
    } catch {
      resolve(false)
    }
  })
}
