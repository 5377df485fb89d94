// Shows how the connection stands, in words with a coloured dot.
import type { ConnectionState } from './connection'
import { element } from './element'

export class Status {
  private readonly text = document.querySelector<HTMLElement>('.status')!
  private readonly reconnect = element<HTMLButtonElement>('reconnect')
  private state: ConnectionState = { kind: 'connecting' }
  private keptOnDevice = true

  constructor(private readonly readOnly: boolean) {}

  show(state: ConnectionState): void {
    this.state = state
    const words = this.words()
    this.reconnect.hidden = state.kind !== 'closed'
    this.text.dataset.state = state.kind
    // Saying the same words again would make a screen reader repeat them.
    if (this.text.textContent !== words) this.text.textContent = words
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

  private words(): string {
    switch (this.state.kind) {
      case 'connecting':
        return 'Connecting…'
      case 'connected':
        return this.readOnly ? 'Connected: you may read, not write' : 'Connected'
      case 'offline':
        return this.keptOnDevice
          ? 'Offline: your edits are kept on this device'
          : 'Offline: your edits are only on this page, keep it open'
      case 'closed':
        return `Closed by the server: ${this.state.reason || 'it gave no reason'} (${this.state.code})`
    }
  }
}
