// Our own view of the line, from the browser's statistics.

/** Over the time between two samples; null where nothing was measured yet. */
export interface Line {
  rtt_ms: number | null;
  /** Of what was sent to us. */
  loss_percent: number | null;
  received_bps: number;
  sent_bps: number;
  /** Sound packets arrived since the last sample. */
  hears: boolean;
}

export interface LineTotals {
  at_ms: number;
  received_bytes: number;
  sent_bytes: number;
  received_packets: number;
  lost_packets: number;
  sound_packets: number;
  rtt_ms: number | null;
}

/** The counters we need out of a stats report. Entries are plain records of many types. */
export function totals(report: Iterable<readonly [string, unknown]>, at_ms: number): LineTotals {
  const sum: LineTotals = {
    at_ms,
    received_bytes: 0,
    sent_bytes: 0,
    received_packets: 0,
    lost_packets: 0,
    sound_packets: 0,
    rtt_ms: null,
  };
  const number = (value: unknown) => (typeof value === 'number' ? value : 0);
  for (const [, entry] of report) {
    const stat = entry as Record<string, unknown>;
    if (stat['type'] === 'inbound-rtp') {
      sum.received_bytes += number(stat['bytesReceived']);
      sum.received_packets += number(stat['packetsReceived']);
      sum.lost_packets += number(stat['packetsLost']);
      if (stat['kind'] === 'audio') sum.sound_packets += number(stat['packetsReceived']);
    } else if (stat['type'] === 'outbound-rtp') {
      sum.sent_bytes += number(stat['bytesSent']);
    } else if (
      stat['type'] === 'candidate-pair' &&
      stat['nominated'] === true &&
      typeof stat['currentRoundTripTime'] === 'number'
    ) {
      sum.rtt_ms = stat['currentRoundTripTime'] * 1000;
    }
  }
  return sum;
}

export function lineBetween(before: LineTotals, after: LineTotals): Line {
  const seconds = Math.max(0.001, (after.at_ms - before.at_ms) / 1000);
  const packets = after.received_packets - before.received_packets;
  const lost = Math.max(0, after.lost_packets - before.lost_packets);
  return {
    rtt_ms: after.rtt_ms,
    loss_percent: packets + lost > 0 ? (100 * lost) / (packets + lost) : null,
    received_bps: Math.max(0, ((after.received_bytes - before.received_bytes) * 8) / seconds),
    sent_bps: Math.max(0, ((after.sent_bytes - before.sent_bytes) * 8) / seconds),
    hears: after.sound_packets > before.sound_packets,
  };
}
