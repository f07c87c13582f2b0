// In every page of a drill: when media arrived, what the server told, which legs were offered. Times
// are Date.now(), the same clock for all processes of the machine; kept are the newest few minutes.
(() => {
  const KEPT = 8000;
  const log = { video: [], audio: [], told: [], legs: [], sockets: [], lost: 0, broken: false };
  window.drill = log;
  const note = (list, entry) => {
    list.push(entry);
    if (list.length > KEPT) list.splice(0, KEPT / 2);
  };

  const peers = [];
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...options) {
      super(...options);
      peers.push(this);
    }
  };
  const before = new WeakMap();
  setInterval(async () => {
    const peer = peers.at(-1);
    if (!peer || peer.connectionState === 'closed') return;
    const now = { video: 0, audio: 0, lost: 0 };
    for (const report of (await peer.getStats()).values()) {
      if (report.type !== 'inbound-rtp') continue;
      now[report.kind] += report.kind === 'video' ? report.framesDecoded : report.packetsReceived;
      now.lost += report.packetsLost;
    }
    const last = before.get(peer) ?? { video: 0, audio: 0, lost: 0 };
    before.set(peer, now);
    if (now.video > last.video) note(log.video, Date.now());
    if (now.audio > last.audio) note(log.audio, Date.now());
    log.lost += Math.max(0, now.lost - last.lost);
  }, 50); // the browser itself refreshes its statistics no more often

  window.WebSocket = class extends WebSocket {
    constructor(...options) {
      super(...options);
      this.addEventListener('open', () => note(log.sockets, Date.now()));
      this.addEventListener('message', ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === 'offer') note(log.legs, message.leg);
        if (message.type === 'participant') {
          const { role, state } = message.participant;
          note(log.told, [Date.now(), role, state]);
        }
      });
    }
  };
})();
