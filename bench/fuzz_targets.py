"""Every parser of outside bytes that we fuzz, by name; what is not in this list is not fuzzed."""

from typing import Final

from bench import fuzz_dtls, fuzz_files, fuzz_net, fuzz_relay, fuzz_words
from bench.fuzz_target import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for target in (
        *fuzz_net.TARGETS,
        *fuzz_dtls.TARGETS,
        *fuzz_relay.TARGETS,
        *fuzz_words.TARGETS,
        *fuzz_files.TARGETS,
    )
}
