//! Threads of the library in a process that belongs to somebody else.
//!
//! Each has a name of at most 15 characters that begins with `trtllm-`. All signals are blocked in it but those that report a
//! fault of the thread itself, so no handler of the host runs there. Its floating-point mode is the default, whatever the mode
//! of the thread that started it, so a result does not depend on who opened an engine.

use std::io;
use std::mem::MaybeUninit;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Starts a thread.
///
/// # Errors
/// The system refuses it.
pub fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    with_signals_blocked(|| builder(name).spawn(|| in_default_floating_point_mode(run)))
}

/// Starts a thread with the caller's signal mask, for what starts processes: they inherit the mask, and one that hears no signal
/// cannot be ended by one.
///
/// # Errors
/// The system refuses it.
pub fn spawn_for_processes<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    builder(name).spawn(|| in_default_floating_point_mode(run))
}

/// Starts a thread with a stack of `stack_size` bytes.
///
/// # Errors
/// The system refuses it.
pub fn spawn_on_stack<T: Send + 'static>(
    name: &str,
    stack_size: usize,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    with_signals_blocked(|| builder(name).stack_size(stack_size).spawn(|| in_default_floating_point_mode(run)))
}

/// Starts a thread of a scope.
///
/// # Errors
/// The system refuses it.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    with_signals_blocked(|| builder(name).spawn_scoped(scope, || in_default_floating_point_mode(run)))
}

fn builder(name: &str) -> Builder {
    debug_assert!(name.starts_with("trtllm-"), "{name} does not say whose it is");
    Builder::new().name(name.to_owned())
}

/// Signals that a fault of the thread itself raises. Where they are blocked the process ends without the host's handler.
const FAULTS: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGSYS];

/// Runs `start` with signals blocked, which a thread that it starts inherits from its first instruction on.
fn with_signals_blocked<T>(start: impl FnOnce() -> T) -> T {
    let mut blocked = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: both places have room for a set; `sigfillset` initialises the first one before it is read, and the second is
    // written by a call that succeeds whenever its arguments are valid. Only this thread's mask changes.
    let changed = unsafe {
        libc::sigfillset(blocked.as_mut_ptr());
        for signal in FAULTS {
            libc::sigdelset(blocked.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, blocked.as_ptr(), before.as_mut_ptr()) == 0
    };
    let started = start();
    if changed {
        // SAFETY: the call above has initialised the mask.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    }
    started
}

/// Runs `compute` with rounding to nearest, all exceptions masked and subnormal numbers kept, and then restores the caller's
/// mode. Costs some nanoseconds.
pub fn in_default_floating_point_mode<T>(compute: impl FnOnce() -> T) -> T {
    let _restores = floating_point::Mode::default();
    compute()
}

#[cfg(target_arch = "x86_64")]
mod floating_point {
    use std::arch::asm;

    /// The control and status register of SSE and what came after it.
    const DEFAULT: u32 = 0x1f80;

    /// The mode of before, which comes back when this is dropped, by a panic too.
    pub(super) struct Mode(u32);

    impl Default for Mode {
        fn default() -> Self {
            let before = mode();
            set(DEFAULT);
            Self(before)
        }
    }

    impl Drop for Mode {
        fn drop(&mut self) {
            set(self.0);
        }
    }

    pub(super) fn mode() -> u32 {
        let mut mode = 0_u32;
        // SAFETY: every CPU of this architecture has the register; four bytes are written to a place that has them.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut mode, options(nostack, preserves_flags)) };
        mode
    }

    pub(super) fn set(mode: u32) {
        // SAFETY: the value is the default or was in the register before, so no reserved bit is set. What Rust computes in
        // between sees the default mode, the one that it assumes.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const mode, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod floating_point {
    /// Nothing is changed here: there are no kernels for this architecture whose results would show it.
    #[derive(Default)]
    pub(super) struct Mode;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of `/proc/thread-self/status`, as a mask.
    fn mask(field: &str) -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    }

    #[test]
    fn a_thread_has_its_name_and_takes_no_signal_of_the_host() {
        let before = mask("SigBlk");
        let see = || (std::fs::read_to_string("/proc/thread-self/comm").unwrap(), mask("SigBlk"));
        let scoped = std::thread::scope(|scope| spawn_scoped(scope, "trtllm-a", see).unwrap().join().unwrap());
        for (name, blocked) in [spawn("trtllm-a", see).unwrap().join().unwrap(), scoped] {
            assert_eq!(name, "trtllm-a\n");
            let is_blocked = |signal: i32| blocked >> (signal - 1) & 1 == 1;
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGALRM, libc::SIGCHLD, libc::SIGUSR1, libc::SIGPROF, 40]
            {
                assert!(is_blocked(signal), "{signal}");
            }
            assert!(!FAULTS.into_iter().any(is_blocked), "{blocked:x}");
        }
        assert_eq!(mask("SigBlk"), before, "the mask of the thread that starts others stays");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_floating_point_mode_is_the_default_inside_and_the_callers_outside() {
        const TOWARD_ZERO_AND_FLUSHING: u32 = 0xffc0;
        let third = || std::hint::black_box(1.0_f32) / std::hint::black_box(-3.0_f32);
        let nearest = third();
        floating_point::set(TOWARD_ZERO_AND_FLUSHING);
        let of_caller = third();
        let inside = in_default_floating_point_mode(third);
        let of_thread = spawn("trtllm-b", third).unwrap().join().unwrap();
        let panicked = std::panic::catch_unwind(|| in_default_floating_point_mode(|| panic!("expected")));
        let after = floating_point::mode() & !0x3f;
        floating_point::set(0x1f80);
        assert_eq!(after, TOWARD_ZERO_AND_FLUSHING);
        assert!(panicked.is_err());
        assert_ne!(of_caller.to_bits(), nearest.to_bits());
        assert_eq!((inside.to_bits(), of_thread.to_bits()), (nearest.to_bits(), nearest.to_bits()));
    }
}
