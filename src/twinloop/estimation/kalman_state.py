"""What the filter bank remembers of each tag, and the numbers its compiled loop goes by.

They stand apart from the loop: its cache on disk notices a change of a number it imports.
"""

from __future__ import annotations

from typing import Final

import numpy as np

__all__ = [
    "BEGUN",
    "CHUNK",
    "COAST_PERIODS",
    "FIRM",
    "GAP_MAX_S",
    "GATED",
    "GATE_NIS",
    "GOOD_MARK",
    "GOOD_STREAK",
    "KEEP_EVERY",
    "NIS_SAMPLES",
    "NOISE_CLIP",
    "NOISE_CLIP_MEAN",
    "NOISE_FLOOR",
    "NOISE_SAMPLES",
    "NOISE_TRUSTED",
    "NOTHING",
    "RELATIVE_RATE_NOISE",
    "RESET",
    "RESET_MARK",
    "RING",
    "RULE",
    "SAMPLE",
    "SECONDS_PER_NS",
    "START_RATE",
    "STATE",
    "TENTATIVE",
    "UNCERTAIN_VARIANCE",
    "USED",
    "VALUE_MAX",
]

GATE_NIS: Final = 25.0
"""A sample whose NIS is beyond this (five standard deviations) is not used."""
UNCERTAIN_VARIANCE: Final = 25.0
"""An Uncertain sample counts as one with five times the noise."""
RELATIVE_RATE_NOISE: Final = 0.05
"""Default rate noise, times noise / every^1.5: the tracking index at one sample a period."""
GOOD_STREAK: Final = 3
"""So many Good samples in a row beyond the gate, and it is the estimate that is wrong."""
NIS_SAMPLES: Final = 100
"""The running NIS is a mean over about this many samples (exponential weights)."""
COAST_PERIODS: Final = 10
"""How long a rate is extrapolated without a usable sample, in cycle periods; then the value is held."""

START_RATE: Final = 10.0  # standard deviation of the first rate, in noise per period: almost unknown
GAP_MAX_S: Final = 86_400.0  # beyond a day the variance grows no further: a sample then starts afresh anyway
NOISE_SAMPLES: Final = 500  # memory of the noise estimate
NOISE_CLIP: Final = 9.0  # a squared deviation enters the noise estimate at no more than 3 deviations
NOISE_CLIP_MEAN: Final = 0.99501  # E min(z^2, 9) of a standard normal z: takes the clipping's bias out
NOISE_TRUSTED: Final = 20  # deviations seen before an estimated noise may gate
NOISE_FLOOR: Final = 1e-9  # of the value: what rounding alone can do
VALUE_MAX: Final = 1e100  # squares of what is beyond would not be finite; NaN is not below it either
SECONDS_PER_NS: Final = 1e-9

RING: Final = 128
"""The newest so many samples of a tag are kept, to be folded again behind a late one."""
KEEP_EVERY: Final = 32
"""Before every so many samples the whole belief is kept: folding again begins there."""
CHUNK: Final = 8
"""So many samples of a tag lie side by side, then those of the next tag.

Tags that go at one pace then write to the same pages of memory and of a checkpoint.
"""

# The belief's `kind`, its own small state machine.
NOTHING: Final = 0  # no usable sample yet
TENTATIVE: Final = 1  # only Uncertain samples so far: the first Good one starts afresh
FIRM: Final = 2  # rests on Good samples

# What became of a sample.
USED: Final = 1
GATED: Final = 2
RESET: Final = 3  # the last of too many gated samples: the belief begins anew from it

# Small, and what every sample touches first: with many tags the loop waits for memory, not for sums.
STATE: Final = np.dtype(
    [
        ("time", "<i8"),  # of the newest sample used, ns
        ("value", "<f8"),
        ("rate", "<f8"),
        ("d0", "<f8"),
        ("d1", "<f8"),
        ("u", "<f8"),
        ("variance", "<f8"),  # noise^2, given or estimated
        ("noise_count", "<i8"),  # deviations behind an estimated noise
        ("quantum", "<f8"),  # smallest change between good samples; 0 before any
        ("last", "<f8"),  # newest good sample
        ("nis", "<f8"),
        ("nis_sum", "<f8"),
        ("nis_count", "<i8"),
        ("folded", "<i8"),  # samples given to the filter since the ring began; 0 where there is none
        ("kind", "<u1"),
        ("used", "<u1"),  # samples used since the belief began; 2 stands for more, too
        ("good_streak", "<u1"),  # Good ones among the newest gated samples, in a row
        ("gated_good", "<u1"),  # whether the newest gated sample was Good
        ("streak", "<i4"),  # gated samples in a row
        ("gated_time", "<i8"),  # the newest of them
        ("gated_value", "<f8"),
        ("gated", "<i8"),  # in all
        ("resets", "<i8"),
    ]
)
RULE: Final = np.dtype(
    [
        ("variance", "<f8"),  # noise^2; NaN: estimate it
        ("rate_noise", "<f8"),  # unit/s per sqrt(s); NaN: relative to noise
        ("relative", "<f8"),  # the default, in noise/s per sqrt(s)
        ("period", "<f8"),  # s
        ("coast", "<f8"),  # s
        ("std_max", "<f8"),
        ("rewind", "<i8"),  # ns; 0: late samples change nothing, and there is no ring
        ("rebaseline", "<i4"),
        ("unit", "<u4"),  # a print of the unit the numbers are in; not read here
        ("analogue", "<u1"),
    ]
)
SAMPLE: Final = np.dtype(
    [
        ("time", "<i8"),
        ("value", "<f8"),
        ("mark", "<u1"),
    ]
)
GOOD_MARK: Final = 1  # its status was Good, else Uncertain
RESET_MARK: Final = 2  # as things stand the belief begins anew from it

BEGUN: Final = np.dtype(
    [
        ("tag", "<i8"),
        ("time", "<i8"),  # of the sample the belief began anew from
        ("before", "<f8"),
        ("after", "<f8"),
    ]
)
"""A belief that began anew, written down to become an event."""
