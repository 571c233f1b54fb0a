//! The process's signal dispositions are a host's. NVIDIA's libraries, Open MPI and UCX change them while they are loaded and
//! initialized: Open MPI 4.1 with UCX takes SIGHUP, SIGILL, SIGABRT, SIGBUS, SIGFPE and SIGSEGV, TensorRT-LLM two of these. A runtime that
//! turns faults into exceptions (Java, Go, .NET) dies of that at its next fault. So dispositions are noted before, and put back after.

use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

/// Signals of Linux are 1 to this.
const LAST: libc::c_int = 64;

/// While one of these lives, libraries may change dispositions. Each puts back at its end what there was before the first of those
/// that live at the same time, so that it does not take another's changes for the host's.
#[derive(Debug)]
pub struct HostSignals(());

/// What there was before the first of those that live, and how many these are.
struct Noted {
    before: Vec<(libc::c_int, libc::sigaction)>,
    living: usize,
}

static NOTED: Mutex<Noted> = Mutex::new(Noted { before: Vec::new(), living: 0 });

impl HostSignals {
    /// Notes what each signal does.
    pub fn note() -> Self {
        let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.living == 0 {
            noted.before = (1..=LAST).filter_map(|signal| disposition(signal).map(|now| (signal, now))).collect();
        }
        noted.living += 1;
        Self(())
    }
}

impl Drop for HostSignals {
    fn drop(&mut self) {
        let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
        for (signal, before) in &noted.before {
            if disposition(*signal).is_some_and(|now| is_same(&now, before)) {
                continue;
            }
            // SAFETY: `before` is a whole disposition of this signal, which the process had. SIGKILL and SIGSTOP cannot be set, and are not.
            unsafe { libc::sigaction(*signal, before, std::ptr::null_mut()) };
        }
        noted.living -= 1;
    }
}

/// Whether two dispositions do the same. The C library's own `SA_RESTORER` is no part of that, and what is behind the mask's 64 signals is
/// not even written.
fn is_same(a: &libc::sigaction, b: &libc::sigaction) -> bool {
    const SA_RESTORER: libc::c_int = 0x0400_0000;
    // SAFETY: both masks were written by the C library, for these signals.
    let is_masked = |action: &libc::sigaction, signal| unsafe { libc::sigismember(&raw const action.sa_mask, signal) };
    a.sa_sigaction == b.sa_sigaction
        && a.sa_flags & !SA_RESTORER == b.sa_flags & !SA_RESTORER
        && (1..=LAST).all(|signal| is_masked(a, signal) == is_masked(b, signal))
}

/// What a signal does; `None` for those that the C library keeps to itself.
fn disposition(signal: libc::c_int) -> Option<libc::sigaction> {
    let mut now = MaybeUninit::uninit();
    // SAFETY: nothing is set; the function writes one disposition where it succeeds.
    unsafe { (libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) == 0).then(|| now.assume_init()) }
}
