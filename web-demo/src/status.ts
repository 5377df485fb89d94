// Shows how the connection stands and whether everything is saved, in words with a coloured dot.
import type { ConnectionState } from './connection'
import { element } from './element'

/** For how long everything must be saved before that is said: while somebody types, the words would flicker. */
const CALM = 400

export class Status {
  private readonly text = document.querySelector<HTMLElement>('.status')!
  private readonly reconnect = element<HTMLButtonElement>('reconnect')
  private state: ConnectionState = { kind: 'connecting' }
  private keptOnDevice = true
  private calm = 0

  constructor(private readonly readOnly: boolean) {}

  show(state: ConnectionState): void {
    clearTimeout(this.calm)
    const wasSaving = this.state.kind === 'saving'
    this.state = state
    if (wasSaving && state.kind === 'saved') this.calm = window.setTimeout(() => this.say(), CALM)
    else this.say()
  }

  /** Whether edits outlive this page while the server is away. */
  setKeptOnDevice(kept: boolean): void {
    this.keptOnDevice = kept
    this.show(this.state)
  }

  onReconnect(connect: () => void): void {
    this.reconnect.addEventListener('click', () => {
      this.show({ kind: 'connecting' })
      connect()
    })
  }

  private say(): void {
    const words = this.words()
    this.reconnect.hidden = this.state.kind !== 'closed'
    this.text.dataset.state = this.state.kind
    // Saying the same words again would make a screen reader repeat them.
    if (this.text.textContent !== words) this.text.textContent = words
  }

  private words(): string {
    switch (this.state.kind) {
      case 'connecting':
        return 'Connecting…'
      case 'saving':
      case 'saved':
        if (this.readOnly) return 'Connected: you may read, not write'
        return this.state.kind === 'saving' ? 'Saving…' : 'Saved'
      case 'offline':
        return this.keptOnDevice
          ? 'Offline: your edits are kept on this device'
          : 'Offline: your edits are only on this page, keep it open'
      case 'closed':
        return `Closed by the server: ${this.state.reason || 'it gave no reason'}`
    }
  }
}
