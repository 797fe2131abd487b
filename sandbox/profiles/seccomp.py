"""The system calls a sandboxed program may make: an allow list in groups, and what is kept out, with the reason.

A call that stands nowhere here does not exist for the program (ENOSYS where the engine can say so, EPERM else), so a
kernel that grows new calls opens nothing. The denied ones are named all the same: the tests hold the two lists apart,
and the probes of `sandbox.probe` make a good part of these calls inside a sandbox and expect a no.

seccomp sees numbers and flags, never addresses or paths: "loopback only" comes from the network namespace, "no host
files" from the mount namespace and the read-only root.

`python -m sandbox.profiles.seccomp` prints the profile as JSON, in the form Docker, Podman and Kubernetes read.
"""

import json
import sys
from collections.abc import Callable, Iterator
from functools import cache

Rule = dict[str, object]

ALLOWED: dict[str, str] = {
    "files and folders": """
        access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
        fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
        fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
        ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init
        inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr
        lremovexattr lseek _llseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat newfstatat open openat openat2
        pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr
        removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs
        statfs64 statx symlink symlinkat sync_file_range tee truncate truncate64 umask unlink unlinkat utime utimensat
        utimensat_time64 utimes write writev
    """,
    "memory": """
        brk cachestat madvise map_shadow_stack memfd_create mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap
        mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
    """,
    "processes and threads": """
        arch_prctl capget capset execve execveat exit exit_group fork futex futex_time64 futex_requeue futex_wait
        futex_waitv futex_wake get_robust_list get_thread_area getegid getegid32 geteuid geteuid32 getgid getgid32
        getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32
        getrlimit getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set membarrier pidfd_open
        pidfd_send_signal prctl prlimit64 rseq set_robust_list set_thread_area set_tid_address setfsgid setfsgid32
        setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid
        setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 ugetrlimit vfork wait4
        waitid waitpid
    """,
    "signals": """
        alarm getitimer kill pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
        rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo setitimer sigaltstack
        signalfd signalfd4 sigprocmask sigreturn tgkill tkill
    """,
    "time and scheduling": """
        clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 getcpu
        gettimeofday nanosleep sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
        sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
        sched_setscheduler sched_yield time timer_create timer_delete timer_getoverrun timer_gettime timer_settime
        timerfd_create timerfd_gettime timerfd_settime times
    """,
    "waiting and pipes": """
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
        eventfd2 pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select _newselect
    """,
    "sockets, once made": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
        recvmsg send sendmmsg sendmsg sendto setsockopt shutdown
    """,
    "about the machine, and a program's own fences": """
        getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp sysinfo uname
    """,
}

DENIED: dict[str, str] = {
    "a second way into the kernel that seccomp does not see": """
        io_uring_enter io_uring_register io_uring_setup io_cancel io_destroy io_getevents io_pgetevents io_setup
        io_submit
    """,
    "loads or observes code in the kernel": """
        bpf create_module delete_module finit_module get_kernel_syms init_module kexec_file_load kexec_load
        lookup_dcookie perf_event_open query_module syslog
    """,
    "stops the kernel in the middle of a copy: the classic help for exploits": "userfaultfd vmsplice",
    "reads or steers another process": """
        kcmp pidfd_getfd process_madvise process_mrelease process_vm_readv process_vm_writev ptrace
    """,
    "changes what is mounted, or makes namespaces": """
        chroot fsconfig fsmount fsopen fspick listmount listns mount mount_setattr move_mount open_tree open_tree_attr
        pivot_root setns statmount swapoff swapon umount umount2 unshare
    """,
    "opens files by number, past every path": "name_to_handle_at open_by_handle_at",
    "keyrings are not divided by namespaces": "add_key keyctl request_key",
    "settings of the machine": """
        acct adjtimex clock_adjtime clock_adjtime64 clock_settime clock_settime64 iopl ioperm nfsservctl quotactl
        quotactl_fd reboot setdomainname sethostname settimeofday stime vhangup
    """,
    "writes out every disk of the machine": "sync syncfs",
    "watches whole file systems": "fanotify_init fanotify_mark",
    "placement of memory on the machine": """
        get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node
    """,
    "message queues, shared memory and semaphores of old": """
        ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
        mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt
        shmget
    """,
    "memory that even we could not look at": "memfd_secret",
    "32-bit multiplexer whose arguments cannot be seen": "socketcall",
    "long history of faults, no use today": """
        _sysctl afs_syscall break ftime getpmsg gtty lock modify_ldt mpx prof profil putpmsg remap_file_pages security
        stty sysfs tuxcall ulimit uselib ustat vm86 vm86old vserver
    """,
    "modules of the kernel's security are the host's to ask": "lsm_get_self_attr lsm_list_modules lsm_set_self_attr",
}

# Chromium puts each process that touches a page into namespaces of its own, without files and network, before it
# narrows that process's calls much further than this list. For that it makes exactly these calls, found out by taking
# each away; without one of them it has no sandbox of its own. They go to profiles that say `calls = "browser"` and to
# no other: whoever may make a user namespace may reach kernel code that others cannot. What makes most of that code
# dangerous stays denied: mounts, netlink and every other socket family, setns, keyrings, bpf.
BROWSER_CLONES = {  # the flags of clone, all of them together
    "a process in a user namespace: to see whether there are any": 0x10000011,
    "the process that starts the others: no processes, no network, no rights outside": 0x70000011,
    "each of the others: it sees no process but itself": 0x20000011,
}
BROWSER_UNSHARES = 0x10000000  # the flags of unshare: a user namespace
BROWSER_CALLS = ("chroot",)  # into an empty folder, in that namespace

FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}  # never AF_VSOCK, AF_ALG, AF_NETLINK, AF_PACKET
_NAMESPACES = 0x7E020000  # every CLONE_NEW* that clone knows
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
_EPERM, _ENOSYS = 1, 38


def names(groups: dict[str, str]) -> set[str]:
    """The calls of all groups."""
    return {name for group in groups.values() for name in group.split()}


def profile(calls: str = "usual") -> dict[str, object]:
    """The profile as the engine reads it: the usual one, or a browser's."""
    browser = calls == "browser"
    denied = names(DENIED) - ({"unshare", *BROWSER_CALLS} if browser else set())
    allow: Rule = {"action": "SCMP_ACT_ALLOW"}

    def when(value: int, operation: str = "SCMP_CMP_EQ", second: int = 0) -> list[Rule]:
        return [{"index": 0, "value": value, "valueTwo": second, "op": operation}]

    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _ENOSYS,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},  # no 32-bit calls, no x32
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
        ],
        "syscalls": [
            {"names": sorted(names(ALLOWED)), **allow},
            {"names": sorted(denied), "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM},
            # Its flags are in memory, where seccomp cannot look. It has to be missing (ENOSYS) rather than refused, so
            # that the C library falls back to clone: TRACE without a tracer, and there is none, says so in the kernel
            # and in gVisor, which knows no other way to say it.
            {"names": ["clone3"], "action": "SCMP_ACT_TRACE"},
            {"names": ["clone"], **allow, "args": when(_NAMESPACES, "SCMP_CMP_MASKED_EQ", 0)},
            *({"names": ["socket"], **allow, "args": when(family)} for family in FAMILIES.values()),
            {"names": ["socketpair"], **allow, "args": when(FAMILIES["AF_UNIX"])},
            *({"names": ["personality"], **allow, "args": when(value)} for value in _PERSONALITIES),
            *(_browser(allow, when) if browser else ()),
        ],
    }


def _browser(allow: Rule, when: Callable[[int], list[Rule]]) -> Iterator[Rule]:
    for flags in BROWSER_CLONES.values():
        yield {"names": ["clone"], **allow, "args": when(flags)}
    yield {"names": ["unshare"], **allow, "args": when(BROWSER_UNSHARES)}
    yield {"names": list(BROWSER_CALLS), **allow}


@cache
def text(calls: str = "usual") -> str:
    """The profile as JSON."""
    return json.dumps(profile(calls), separators=(",", ":"))


if __name__ == "__main__":
    json.dump(profile(), sys.stdout, indent=1)
