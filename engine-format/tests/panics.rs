//! Caught panics print nothing, and other panics reach the hook that a host has. A process of its own: the hook is the process's.

#![allow(clippy::panic, reason = "panics are what is tested")]

use std::sync::{Arc, Mutex};

use engine_format::panics::caught;

/// A payload that panics as it is dropped.
struct Loud;

impl Drop for Loud {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[test]
fn the_hosts_hook_hears_its_own_panics_only() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let writes = heard.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<&str>().copied().unwrap_or("another");
        writes.lock().unwrap().push(text.to_owned());
    }));
    let heard = || std::mem::take(&mut *heard.lock().unwrap());

    assert_eq!(caught(|| 5), Ok(5));
    assert_eq!(caught(|| panic!("one {}", 1)), Err::<(), _>("one 1".to_owned()));
    assert_eq!(caught(|| drop(Loud)), Err("dropped".to_owned()));
    assert_eq!(caught(|| std::panic::panic_any(Loud)), Err::<(), _>("no reason was given".to_owned()));
    // Within another, too, and after an inner one has ended.
    let nested = caught(|| {
        assert_eq!(caught(|| panic!("inner")), Err::<(), _>("inner".to_owned()));
        panic!("outer")
    });
    assert_eq!(nested, Err::<(), _>("outer".to_owned()));
    assert_eq!(heard(), [""; 0]);

    // Another thread's, while this one is in `caught`; and this one's own, outside of it.
    let other = caught(|| std::thread::spawn(|| panic!("another thread's")).join().is_err());
    assert_eq!(other, Ok(true));
    assert!(std::panic::catch_unwind(|| panic!("outside")).is_err());
    assert_eq!(heard(), ["another thread's", "outside"]);
}
