// Is the server there again? Asked by small HTTP requests beside the socket: a browser opens one
// WebSocket to a place at a time, holds back pages whose sockets keep failing, and lets a lost SYN
// wait for seconds. Requests may overlap, so an answer comes within a second of the line's return.
const EVERY_MS = 600;
const PATIENCE_MS = 2_500;
/** Where no request is ever answered (a proxy that lets only the socket through), try the socket. */
const UNANSWERED_MS = 15_000;

export type Knock = (signal: AbortSignal) => Promise<unknown>;

/** Any answer of the place behind a socket's address will do, even a refusal. */
export function knockAt(ws_url: string): Knock {
  const url = new URL('/livez', ws_url.replace(/^ws/, 'http'));
  return (signal) =>
    fetch(url, { signal, mode: 'no-cors', cache: 'no-store', credentials: 'omit' });
}

export class Knocker {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private current: AbortController | null = null;

  constructor(
    private readonly onAnswer: () => void,
    private readonly random: () => number,
  ) {}

  /** Knock after `first_ms` and then on and on; tell of the first answer and rest. */
  start(knock: Knock, first_ms: number): void {
    this.stop();
    const all = new AbortController();
    this.current = all;
    const began = performance.now();
    const answered = () => {
      if (all.signal.aborted) return;
      this.stop();
      this.onAnswer();
    };
    const next = () => {
      if (performance.now() - began >= UNANSWERED_MS) {
        answered();
        return;
      }
      knock(AbortSignal.any([all.signal, AbortSignal.timeout(PATIENCE_MS)])).then(
        answered,
        () => undefined,
      );
      // Spread by ±20 %: a hall of kiosks must not knock in one moment.
      this.timer = setTimeout(next, EVERY_MS * (0.8 + 0.4 * this.random()));
    };
    this.timer = setTimeout(next, first_ms);
  }

  stop(): void {
    clearTimeout(this.timer);
    this.current?.abort();
    this.current = null;
  }
}
