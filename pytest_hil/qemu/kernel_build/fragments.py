"""Features of a kernel → lines of its configuration. Pure.

A configuration is made by ``make allnoconfig`` with these lines as what it starts from: what is
not here is off, and so a build is as small as it can be. Which words there are in
lib/Kconfig.debug and its neighbours changes between versions: a word that a version does not have
is in ``optional`` of its feature, and :func:`missing` tells what else did not come true.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_hil.errors import ConfigError, nearest

ARCHES = ("x86_64",)
"""Those whose kernels can be built; the machine's own drivers are of each architecture's own."""

_BASE = """
DEBUG_KERNEL SMP HIGH_RES_TIMERS NO_HZ_IDLE PREEMPT_VOLUNTARY SYSVIPC POSIX_MQUEUE CGROUPS
NAMESPACES UTS_NS IPC_NS USER_NS PID_NS NET_NS MODULES MODULE_UNLOAD IKCONFIG IKCONFIG_PROC
BLK_DEV_INITRD RD_GZIP RD_XZ RD_ZSTD KALLSYMS KALLSYMS_ALL
PRINTK_TIME MAGIC_SYSRQ PANIC_ON_OOPS=n DEBUG_FS PROC_FS SYSFS DEVTMPFS TMPFS TMPFS_XATTR
INOTIFY_USER FHANDLE
BINFMT_ELF BINFMT_SCRIPT TTY UNIX98_PTYS SERIAL_8250 SERIAL_8250_PNP SERIAL_8250_CONSOLE
STACKTRACE DETECT_HUNG_TASK SOFTLOCKUP_DETECTOR WQ_WATCHDOG DEBUG_BUGVERBOSE
DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT DEBUG_INFO_REDUCED
NET UNIX INET PACKET NETDEVICES NET_CORE ETHERNET=n WLAN=n
PCI PCI_MSI ACPI VIRTIO_MENU VIRTIO_PCI VIRTIO_CONSOLE VIRTIO_NET BLK_DEV VIRTIO_BLK BLK_DEV_LOOP
HW_RANDOM HW_RANDOM_VIRTIO PVPANIC PVPANIC_PCI VIRT_DRIVERS VMGENID
INPUT INPUT_EVDEV HID HID_GENERIC HIDRAW UHID
USB_SUPPORT USB USB_ANNOUNCE_NEW_DEVICES USB_MON USB_HID USB_HIDDEV USB_ACM USB_STORAGE USB_UAS
USB_XHCI_HCD USB_EHCI_HCD USB_TEST
USBIP_CORE USBIP_VHCI_HCD USBIP_HOST
SCSI BLK_DEV_SD
EXT4_FS VFAT_FS NLS_CODEPAGE_437 NLS_ISO8859_1 NLS_UTF8 NLS_ASCII
NET_9P NET_9P_VIRTIO NETWORK_FILESYSTEMS 9P_FS
"""

# Not in all versions; elsewhere the others mean it.
_BASE_OPTIONAL = "HID_SUPPORT"

_X86_64 = """
64BIT HYPERVISOR_GUEST PARAVIRT KVM_GUEST PVH NR_CPUS=16 X86_X2APIC RTC_CLASS RTC_DRV_CMOS
PCI_MMCONFIG KERNEL_GZIP
"""


@dataclass(frozen=True, slots=True)
class Feature:
    """``symbols``: "NAME" for =y, "NAME=value" for another. ``optional``: those that not every
    version has. ``without``: features that a kernel cannot have beside it, and why.
    """

    help: str
    symbols: str
    optional: str = ""
    without: Mapping[str, str] = field(default_factory=dict)


FEATURES: Mapping[str, Feature] = {
    "kasan": Feature(
        "wrong memory accesses: out of bounds, after free (about 2 times slower)",
        "KASAN KASAN_GENERIC KASAN_INLINE KASAN_STACK KASAN_VMALLOC VMAP_STACK SLUB_DEBUG",
        without={
            "kcsan": "the compiler instruments accesses for one of them only",
        },
    ),
    "kcsan": Feature(
        "data races (3 to 5 times slower)",
        # All but the first are its defaults, which allnoconfig takes away.
        "KCSAN KCSAN_EARLY_ENABLE KCSAN_REPORT_ONCE_IN_MS=1000 KCSAN_REPORT_VALUE_CHANGE_ONLY "
        "KCSAN_ASSUME_PLAIN_WRITES_ATOMIC KCSAN_DELAY_RANDOMIZE KCSAN_SKIP_WATCH_RANDOMIZE",
        optional="KCSAN_STRICT=n KCSAN_WEAK_MEMORY=n",
        without={"gcov": "gcov's counters are races themselves, by the thousand"},
    ),
    "kfence": Feature(
        "some of the wrong heap accesses, at nearly no cost",
        "KFENCE KFENCE_SAMPLE_INTERVAL=100",
    ),
    "ubsan": Feature(
        "undefined behaviour: shifts, bounds, overflows",
        "UBSAN UBSAN_SHIFT UBSAN_BOUNDS UBSAN_BOOL UBSAN_ENUM",
        optional="UBSAN_SANITIZE_ALL",
    ),
    "lockdep": Feature(
        "locks in a wrong order, or in a wrong context",
        "PROVE_LOCKING DEBUG_ATOMIC_SLEEP DEBUG_LOCK_ALLOC DEBUG_SPINLOCK DEBUG_MUTEXES "
        "DEBUG_RT_MUTEXES LOCKDEP PROVE_RCU",
        optional="PROVE_RAW_LOCK_NESTING",
    ),
    "kmemleak": Feature(
        "memory that nobody points at any more",
        "DEBUG_KMEMLEAK DEBUG_KMEMLEAK_AUTO_SCAN DEBUG_KMEMLEAK_MEM_POOL_SIZE=16000",
    ),
    "debug": Feature(
        "checks of lists, reference counts, pages, objects, notifiers, stacks",
        "DEBUG_LIST DEBUG_SG DEBUG_NOTIFIERS DEBUG_OBJECTS DEBUG_OBJECTS_FREE DEBUG_OBJECTS_TIMERS "
        "DEBUG_OBJECTS_WORK SCHED_STACK_END_CHECK SLUB_DEBUG SLUB_DEBUG_ON DEBUG_VM "
        "STACKPROTECTOR STACKPROTECTOR_STRONG BUG_ON_DATA_CORRUPTION VMAP_STACK",
    ),
    "gcov": Feature(
        "which lines ran: --hil-cov (about 2 times slower; its build directory is kept)",
        "GCOV_KERNEL GCOV_PROFILE_ALL CONSTRUCTORS",
    ),
    "kcov": Feature("coverage for fuzzers", "KCOV KCOV_INSTRUMENT_ALL"),
    "fault-injection": Feature(
        "allocations and requests that fail on demand",
        "FAULT_INJECTION FAULT_INJECTION_DEBUG_FS FAILSLAB FAIL_PAGE_ALLOC FAIL_MAKE_REQUEST "
        "FAULT_INJECTION_USERCOPY FAIL_FUTEX",
        optional="FAULT_INJECTION_STACKTRACE_FILTER",
    ),
    "lkdtm": Feature(
        "crashes on demand: /sys/kernel/debug/provoke-crash/DIRECT", "RUNTIME_TESTING_MENU LKDTM"
    ),
    "ftrace": Feature(
        "tracing of functions, kprobes",
        "FTRACE FUNCTION_TRACER DYNAMIC_FTRACE KPROBES KPROBE_EVENTS",
    ),
}

_WORD = re.compile(r"\s*,\s*|\s+")
_SET = re.compile(r"^CONFIG_(\w+)=(.*)$", re.MULTILINE)


def parse(text: str) -> tuple[str, ...]:
    """The features in "kasan,lockdep": sorted, each once. Raises ConfigError."""
    words = sorted({word for word in _WORD.split(text.strip().lower()) if word})
    for word in words:
        if word not in FEATURES:
            raise ConfigError(
                "kernel build --with", f"there is no feature {word!r}", mend=nearest(word, FEATURES)
            )
    for word in words:
        for other, why in FEATURES[word].without.items():
            if other in words:
                raise ConfigError(
                    "kernel build --with",
                    f"a kernel cannot have {word} and {other}: {why}",
                    mend="build two kernels, and run the tests on both",
                )
    return tuple(words)


def fragment(features: Sequence[str], *, arch: str) -> str:
    """The lines of the configuration for these features (as :func:`parse` gives them)."""
    _check_arch(arch)
    base = [*_BASE.split(), *_BASE_OPTIONAL.split(), *_X86_64.split()]
    lines = ["# The machine, and what the guest's programs need.", *_lines(base)]
    seen = set(base)
    for name in features:
        feature = FEATURES[name]
        words = [*feature.symbols.split(), *feature.optional.split()]
        lines += ["", f"# {name}: {feature.help}"]
        # Kconfig warns of what is said twice.
        lines += _lines(word for word in words if word not in seen)
        seen.update(words)
    return "\n".join(lines) + "\n"


def missing(config: str, features: Sequence[str], *, arch: str) -> list[str]:
    """What was asked for and is not so in a finished .config: "KASAN=y", …"""
    _check_arch(arch)
    wanted = [*_X86_64.split(), *_BASE.split()]
    for name in features:
        wanted += FEATURES[name].symbols.split()
    got = dict(_SET.findall(config))
    return [
        f"{name}={value}"
        for name, value in map(_pair, dict.fromkeys(wanted))
        if got.get(name, "n") != value
    ]


def _check_arch(arch: str) -> None:
    if arch not in ARCHES:
        raise ConfigError(
            "kernel build",
            f"kernels for {arch} cannot be built (yet)",
            mend=f"known: {', '.join(ARCHES)}; build yours by hand, docs/howto/own-kernel.md says "
            "what it must have",
        )


def _lines(words: Iterable[str]) -> list[str]:
    return [
        f"# CONFIG_{name} is not set" if value == "n" else f"CONFIG_{name}={value}"
        for name, value in map(_pair, words)
    ]


def _pair(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value or "y"
