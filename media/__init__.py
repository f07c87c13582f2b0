"""DURING, packets: a relay that forwards and records encoded media and never opens it.

How a packet travels (each arrow is a plain function call in the turn that read the datagram):

    socket ─▶ node (guard) ─┬▶ ice        STUN: who may speak from where
                            ├▶ dtls       keys, once per leg
                            ├▶ router ─▶ taps/recorder ─▶ journal      every packet, as received
                            │    └─────▶ srtp ─▶ socket                one copy per receiver
                            └▶ feedback   RTCP: repairs, keyframes, reports, rates

Live (this page's upper half; nothing here knows files or the database)
    node      MediaNode: one UDP port, the guard before every parser; MediaRoom: who is here
    peer      one participant: offers and answers, publications, legs, silence, quality
    tables    Leg, Source, Publication, Subscription: the plain data that the hot loop walks
    numbers   what of them every packet changes: C structures, where those could be built
    router    the hot loop; new SSRCs, holes, repairs, codec changes
    fastlane  its common case in C (_fastlane.c), where that could be built; the same tables
    loop      the event loop, in whose wait the fast lane relays: no Python between two packets
    feedback  NACK, PLI, SR, RR, REMB, with a budget for whatever a client could ask without end
    bitrate   how fast a client may send, what a receiver can take: sound first (pure)
    keyframes the newest in a publication's cache: is it whole, who has got it
    freezes   when a picture stands still for everyone (pure)
    socket · ice · dtls · srtp · sdp · rtp      one protocol each; ice and rtp decide, purely
    offers · outlets   clients that offer (WHIP, WHEP): their SDP, and what a hall screen is shown
    tracks · events · stats · taps              the words shared with signaling and the recorder
    client · selftest                           a Python client of the relay; `doctor`'s own call

Recorded (the lower half; knows no sockets)
    recorder  one session's recording: its directory, its legs, what has truly been written
    party_tap one leg: what waits, what is written, what is repeated;  segment: one open file
    writer    the one thread that writes, the few that sync;  disk: the system calls of both
    journal   append-only, checksummed records; recovery cuts the torn tail
    unread    reading on where a disk does not give everything back
    manifest  the book that closes a recording; recovery
    verification · chain · signing      a recording read against its book: none gone, none changed
    inspection  what is in a recording, for a person at a console
    mux       journals → one seekable file per party, without transcoding, on one timeline
    reel      its labour with every packet in C (_reel.c), where that could be built; same bytes
    webm      a WebM file's head, and how one is written once from front to back
    timing · index · soundtrack   clocks fitted; packets placed on the timeline; sound end to end
    compose   the one picture that people watch; ffmpeg runs what it describes
    finishing · jobs   the steps from journals to files, each in a child; told to the database
    warm · warm_parent   where those children come from: one process that has imported everything
    scrub     finished recordings, read again at night;  erasure: the files go, the list stays

Where do I change …?
    what is offered (codecs, header extensions)      sdp: the tables at its top
    how fast a camera may send, who gets sound only  bitrate: Uplink, Downlink, the numbers on top
    when someone counts as silent or lost            peer: SILENT_AFTER_NS, CONSENT_NS
    who gets which packet                            peer.Peer.refresh, and nowhere else
"""
