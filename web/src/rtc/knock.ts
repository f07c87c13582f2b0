// Is the server there again? Asked by small HTTP requests beside the socket: a browser opens one
// WebSocket to a place at a time, holds back pages whose sockets keep failing, and lets a lost SYN
// wait for seconds. Requests may overlap, so an answer comes within a second of the line's return.
const EVERY_MS = 600;
/** Refused at once: the line is there, and whoever answers is only just starting. */
const AFTER_REFUSAL_MS = 250;
const PATIENCE_MS = 2_500;
/** Where no request is ever answered (a proxy that lets only the socket through), try the socket,
 * and go on knocking: it may hang for longer than the line is still away. */
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

  /** Knock after `first_ms` and then on and on; tell of the first answer and rest. Told at times
   * without an answer too: then a socket should be tried. */
  start(knock: Knock, first_ms: number): void {
    this.stop();
    const all = new AbortController();
    this.current = all;
    let triedAt = performance.now();
    const answered = () => {
      if (all.signal.aborted) return;
      this.stop();
      this.onAnswer();
    };
    const next = () => {
      const asked = performance.now();
      if (asked - triedAt >= UNANSWERED_MS) {
        triedAt = asked;
        this.onAnswer();
        if (all.signal.aborted) return;
      }
      knock(AbortSignal.any([all.signal, AbortSignal.timeout(PATIENCE_MS)])).then(answered, () => {
        if (!all.signal.aborted && performance.now() - asked < AFTER_REFUSAL_MS) {
          again(AFTER_REFUSAL_MS);
        }
      });
      again(EVERY_MS);
    };
    const again = (wait_ms: number) => {
      clearTimeout(this.timer);
      // Spread by ±20 %: a hall of kiosks must not knock in one moment.
      this.timer = setTimeout(next, wait_ms * (0.8 + 0.4 * this.random()));
    };
    this.timer = setTimeout(next, first_ms);
  }

  get isKnocking(): boolean {
    return this.current !== null;
  }

  stop(): void {
    clearTimeout(this.timer);
    this.current?.abort();
    this.current = null;
  }
}
