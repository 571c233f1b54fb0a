//! What belongs to a host: it may panic as it runs, as it is dropped, and even as the panic's own payload is dropped.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `run`; the panic's message, where it has one, if it panics. What it leaves half-changed has to be its own.
///
/// # Errors
/// It panicked.
pub(crate) fn contained<T>(run: impl FnOnce() -> T) -> Result<T, Option<String>> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        let message = message_of(payload.as_ref());
        if message.is_none() {
            // Dropping a payload runs code of the host once more, outside of every catch.
            std::mem::forget(payload);
        }
        message
    })
}

fn message_of(payload: &(dyn Any + Send)) -> Option<String> {
    payload.downcast_ref::<String>().cloned().or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_panic_gets_out() {
        struct Loud;
        impl Drop for Loud {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        assert_eq!(contained(|| 5), Ok(5));
        assert_eq!(contained(|| panic!("one {}", 1)), Err::<(), _>(Some("one 1".to_owned())));
        assert_eq!(contained(|| std::panic::panic_any(Loud)), Err::<(), _>(None));
        assert_eq!(contained(|| drop(Loud)), Err(Some("dropped".to_owned())));
    }
}
