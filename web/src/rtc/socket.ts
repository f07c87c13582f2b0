// One signaling socket from opening to closing: hello, request ids, liveness. It does not come back by
// itself; `session.ts` opens the next one.
import {
  CloseCode,
  PROTOCOL_VERSION,
  type ClientMessage,
  type ServerMessage,
  type Welcome,
} from '@/wire/signaling';

/** The part of WebSocket that we use; tests bring their own. */
export interface SocketLike {
  send(data: string): void;
  close(code?: number): void;
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: (() => void) | null;
}

/** A request that was answered with `error`, or not at all. */
export class SignalingError extends Error {
  constructor(
    /** From the server, or `connection_lost` / `no_answer`. */
    readonly code: string,
    message: string,
    readonly fatal = false,
  ) {
    super(message);
    this.name = 'SignalingError';
  }
}

type WithoutId<T> = T extends { id: string } ? Omit<T, 'id'> : never;
/** A client message that the server must answer. */
export type Request = WithoutId<ClientMessage>;
type Answered = Extract<ServerMessage, { type: 'ok' | 'joined' | 'resumed' }>;

interface Pending {
  resolve: (answer: Answered) => void;
  reject: (error: SignalingError) => void;
  timer: ReturnType<typeof setTimeout>;
}

interface SocketEvents {
  onWelcome: (welcome: Welcome) => void;
  /** Everything but welcome, pong and answers to requests. */
  onMessage: (message: ServerMessage) => void;
  /** Once, however it ended. Pending requests have been refused before. */
  onClosed: (ending: Ending) => void;
  onRoundTrip?: (milliseconds: number) => void;
}

/** `replaced`: our seat went to a newer socket, so coming back would only take it away again. */
export type Ending = 'lost' | 'replaced' | 'dropped';

const ANSWER_WITHIN_MS = 10_000;
const OPEN_WITHIN_MS = 8_000;
const MISSED_PINGS = 3;

export class SignalSocket {
  private readonly pending = new Map<string, Pending>();
  private nextId = 1;
  private unanswered = 0;
  private heartbeat: ReturnType<typeof setInterval> | undefined;
  private readonly opening: ReturnType<typeof setTimeout>;
  private isClosed = false;

  constructor(
    private readonly socket: SocketLike,
    private readonly events: SocketEvents,
    client: string,
  ) {
    this.opening = setTimeout(() => this.drop(), OPEN_WITHIN_MS);
    socket.onopen = () => this.write({ type: 'hello', versions: [PROTOCOL_VERSION], client });
    socket.onmessage = ({ data }) => this.read(data);
    socket.onclose = ({ code }) => this.closed(code === CloseCode.REPLACED ? 'replaced' : 'lost');
    // The close that always follows an error tells us enough.
    socket.onerror = () => undefined;
  }

  request(message: Request): Promise<Answered> {
    if (this.isClosed) {
      return Promise.reject(new SignalingError('connection_lost', 'The connection is lost.'));
    }
    const id = `c${this.nextId++}`;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.pending.delete(id);
        reject(new SignalingError('no_answer', `No answer to ${message.type}.`));
      }, ANSWER_WITHIN_MS);
      this.pending.set(id, { resolve, reject, timer });
      this.write({ ...message, id } as ClientMessage);
    });
  }

  /** Close and tell `onClosed`, even when the network never will. */
  drop(): void {
    if (this.isClosed) return;
    this.socket.onclose = null;
    this.socket.onmessage = null;
    this.socket.onopen = null;
    try {
      this.socket.close(1000);
    } finally {
      this.closed('dropped');
    }
  }

  private write(message: ClientMessage): void {
    this.socket.send(JSON.stringify(message));
  }

  private read(data: unknown): void {
    const message = parse(data);
    if (!message) return;
    switch (message.type) {
      case 'welcome':
        clearTimeout(this.opening);
        this.heartbeat = setInterval(() => this.beat(), message.heartbeat_ms);
        this.events.onWelcome(message);
        return;
      case 'pong':
        this.unanswered = 0;
        this.events.onRoundTrip?.(performance.now() - message.t);
        return;
      case 'ok':
      case 'joined':
      case 'resumed': {
        // The page must know the new state before the request's promise runs on.
        if (message.type !== 'ok') this.events.onMessage(message);
        this.take(message.id)?.resolve(message);
        return;
      }
      case 'error': {
        const error = new SignalingError(message.code, message.message, message.fatal);
        const request = message.id === null ? undefined : this.take(message.id);
        if (request) request.reject(error);
        else this.events.onMessage(message);
        return;
      }
      default:
        this.events.onMessage(message);
    }
  }

  private take(id: string): Pending | undefined {
    const request = this.pending.get(id);
    if (request) clearTimeout(request.timer);
    this.pending.delete(id);
    return request;
  }

  private beat(): void {
    if (this.unanswered >= MISSED_PINGS) {
      this.drop();
      return;
    }
    this.unanswered += 1;
    this.write({ type: 'ping', t: performance.now() });
  }

  private closed(ending: Ending): void {
    if (this.isClosed) return;
    this.isClosed = true;
    clearTimeout(this.opening);
    clearInterval(this.heartbeat);
    for (const request of this.pending.values()) {
      clearTimeout(request.timer);
      request.reject(new SignalingError('connection_lost', 'The connection is lost.'));
    }
    this.pending.clear();
    this.events.onClosed(ending);
  }
}

function parse(data: unknown): ServerMessage | null {
  if (typeof data !== 'string') return null;
  try {
    const message: unknown = JSON.parse(data);
    const isMessage = typeof message === 'object' && message !== null && 'type' in message;
    return isMessage ? (message as ServerMessage) : null;
  } catch {
    return null;
  }
}
