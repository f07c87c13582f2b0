import { describe, expect, it } from 'vitest';
import { merge, Watched } from './watched';

describe('what was watched', () => {
  it('is one stretch while the clock runs on', () => {
    const watched = new Watched();
    for (let at = 1000; at <= 3000; at += 100) watched.see(at);
    expect(watched.take()).toEqual([{ start_ms: 1000, end_ms: 3000 }]);
  });

  it('does not hold what was jumped over', () => {
    const watched = new Watched();
    watched.see(0);
    watched.see(500);
    watched.cut();
    watched.see(20_000);
    watched.see(20_400);
    expect(watched.take()).toEqual([
      { start_ms: 0, end_ms: 500 },
      { start_ms: 20_000, end_ms: 20_400 },
    ]);
  });

  it('leaves no hole between two reports of one stretch', () => {
    const watched = new Watched();
    watched.see(0);
    watched.see(900);
    const first = watched.take();
    watched.see(1800);
    expect(merge([...first, ...watched.take()])).toEqual([{ start_ms: 0, end_ms: 1800 }]);
  });

  it('is kept when the report was lost', () => {
    const watched = new Watched();
    watched.see(0);
    watched.see(800);
    watched.restore(watched.take());
    watched.see(1600);
    expect(watched.take()).toEqual([{ start_ms: 0, end_ms: 1600 }]);
  });

  it('sends at most two hundred stretches at once and the rest later', () => {
    const watched = new Watched();
    for (let n = 0; n < 250; n += 1) {
      watched.see(n * 10_000);
      watched.see(n * 10_000 + 500);
      watched.cut();
    }
    expect(watched.take()).toHaveLength(200);
    expect(watched.take()).toHaveLength(50);
    expect(watched.take()).toHaveLength(0);
  });

  it('counts a moment seen twice once', () => {
    const watched = new Watched();
    watched.see(0);
    watched.see(900);
    watched.cut();
    watched.see(500);
    watched.see(1300);
    expect(watched.seen()).toEqual([{ start_ms: 0, end_ms: 1300 }]);
  });
});
