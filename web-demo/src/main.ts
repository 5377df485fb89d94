// Puts the page together: one document, one connection, one person, and the parts that show them.
import './page.css'
import './people.css'
import './toolbar.css'
import './document.css'
import './history.css'
import { Awareness } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { connect } from './connection'
import { keepOnDevice } from './device'
import { documentNameOfThisPage } from './document-name'
import { createEditor } from './editor'
import { element } from './element'
import { fillExportMenu } from './export'
import { attachHistory } from './history'
import { attachLinkDialog } from './link-dialog'
import { keepPageOffline } from './offline-page'
import { showPeople } from './people'
import { personOfThisVisitor } from './person'
import { attachShare } from './share'
import { Status } from './status'
import { showTitle } from './title'
import { may, tokenOfThisPage } from './token'
import { attachToolbar } from './toolbar'

const documentName = documentNameOfThisPage()
const token = tokenOfThisPage()
const readOnly = !may(token, 'write', documentName)
const ydoc = new Y.Doc()
const awareness = new Awareness(ydoc)
awareness.setLocalStateField('user', personOfThisVisitor(token))

showTitle(documentName)
fillExportMenu(documentName, token)
attachShare(documentName)
showPeople(awareness)
attachHistory(documentName, token, awareness)

const editor = createEditor(element('editor'), ydoc, awareness)
const openLinkDialog = attachLinkDialog(editor)
attachToolbar(element('toolbar'), editor, openLinkDialog)

editor.setEditable(!readOnly)

const status = new Status(readOnly)
void keepOnDevice(documentName, ydoc).then((kept) => status.setKeptOnDevice(kept))
const connection = connect(documentName, token, ydoc, awareness, (state) => {
  status.show(state)
  // A document that the server has closed takes no more edits, so none are invited.
  editor.setEditable(state.kind !== 'closed' && !readOnly)
})
status.onReconnect(() => connection.connect())

keepPageOffline()
