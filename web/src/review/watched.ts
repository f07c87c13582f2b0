// What has really been watched: stretches of the timeline over which the clock ran, nothing that was
// skipped. Kept until the server has it, so that a lost line loses no minute of a reviewer's work.
import type { PlaybackSpan } from '@/wire/api';

/** Longer than a tick at triple speed, shorter than the smallest jump anyone makes. */
const JOIN_MS = 1000;
/** One report carries at most this many stretches. */
const MOST_SPANS = 200;

export class Watched {
  private open: PlaybackSpan | null = null;
  private closed: PlaybackSpan[] = [];
  private everything: PlaybackSpan[] = [];

  /** The clock ran to `at_ms`. */
  see(at_ms: number): void {
    const at = Math.round(at_ms);
    if (this.open && at >= this.open.end_ms && at - this.open.end_ms <= JOIN_MS)
      this.open.end_ms = at;
    else {
      this.cut();
      this.open = { start_ms: at, end_ms: at };
    }
  }

  /** The clock stopped or jumped. */
  cut(): void {
    if (this.open && this.open.end_ms > this.open.start_ms) {
      this.closed.push(this.open);
      this.everything = merge([...this.everything, this.open]);
    }
    this.open = null;
  }

  /** What the server does not know yet. The caller sends it, or gives it back with `restore`. */
  take(): PlaybackSpan[] {
    const at = this.open?.end_ms;
    this.cut();
    if (at !== undefined) this.open = { start_ms: at, end_ms: at };
    const all = merge(this.closed);
    this.closed = all.slice(MOST_SPANS);
    return all.slice(0, MOST_SPANS);
  }

  restore(spans: readonly PlaybackSpan[]): void {
    this.closed = merge([...spans, ...this.closed]);
  }

  /** Everything seen on this page, merged, in order. */
  seen(): PlaybackSpan[] {
    return merge(this.open ? [...this.everything, this.open] : this.everything);
  }
}

export function merge(spans: readonly PlaybackSpan[]): PlaybackSpan[] {
  const merged: PlaybackSpan[] = [];
  for (const span of [...spans].sort((a, b) => a.start_ms - b.start_ms)) {
    const last = merged.at(-1);
    if (last && span.start_ms <= last.end_ms) last.end_ms = Math.max(last.end_ms, span.end_ms);
    else merged.push({ ...span });
  }
  return merged.filter((span) => span.end_ms > span.start_ms);
}
